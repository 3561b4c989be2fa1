import json

from app.main import create_app
from runtime.settings import Settings

if __name__ == "__main__":
    print(json.dumps(create_app(Settings()).openapi(), indent=1))
