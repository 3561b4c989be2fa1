import json

import pytest

from models.runs.prompts import PROMPT_SHOWN, prompt_of

LONG = 'a "quoted" \\ line\n' * 200


@pytest.mark.parametrize(
    ("parameters", "prompt"),
    [
        (None, None),
        ("{}", None),
        ("[1]", None),
        ('{"prompt": 7}', None),
        ('{"prompt": "Say hello"}', "Say hello"),
        ('{"other": {"prompt": "inner"}}', None),
        (json.dumps({"prompt": LONG}), LONG[:PROMPT_SHOWN]),
        (json.dumps({"prompt": LONG})[:1000], LONG[:PROMPT_SHOWN]),
        ('{"prompt": "half an escape \\u00', "half an escape "),
        ('{"prompt": "half a pair \\ud83d"}', "half a pair ?"),
        ('{"prompt": "null \\u0000 byte"}', "null \0 byte"),
        ('{"long": "' + "x" * 500, None),
        ('{"deep": ' + "[" * 1990, None),
    ],
)
def test_prompt_is_read_from_cut_parameters(parameters: str | None, prompt: str | None) -> None:
    assert prompt_of(parameters) == prompt
