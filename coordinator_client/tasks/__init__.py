"""Runner for functions of this program: a decorator makes a function a task, `TaskRunner.serve` executes its runs."""

from coordinator_client.tasks.requests import TaskOptions, task_request
from coordinator_client.tasks.run import RunCancelled, TaskRun
from coordinator_client.tasks.task import Task
from coordinator_client.tasks.task_runner import TaskRunner

__all__ = ["RunCancelled", "Task", "TaskOptions", "TaskRun", "TaskRunner", "task_request"]
