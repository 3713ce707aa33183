"""A region every month, for Airflow 3: look at the machine, say what would be done, map in parts.

Its variables: `citycover_folder` (where region.toml lies), `citycover_parts`. `citycover` is on the workers'
PATH.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Variable

FOLDER = Variable.get("citycover_folder", default="/srv/citycover")
PARTS = int(Variable.get("citycover_parts", default=8))

with DAG(
    dag_id="citycover_region",
    schedule="17 2 3 * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"cwd": FOLDER, "append_env": True},
    tags=["citycover"],
) as dag:
    fit = BashOperator(task_id="doctor", bash_command="citycover doctor --quick -q")
    plan = BashOperator(task_id="plan", bash_command="citycover run region.toml --dry-run --json")
    done = BashOperator(
        task_id="status", bash_command="citycover status region.toml", trigger_rule="all_done"
    )
    # What the machine failed (4) or a signal stopped (143) is tried again and goes on; 6 means another run is
    # at it, and is skipped. Time limits end a task by SIGTERM, which keeps what is finished.
    for part in range(1, PARTS + 1):
        mapped = BashOperator(
            task_id=f"part_{part}",
            bash_command=f"citycover run region.toml -q --shard {part}/{PARTS}",
            skip_on_exit_code=6,
            retries=3,
            retry_delay=timedelta(minutes=10),
            execution_timeout=timedelta(hours=12),
        )
        fit >> plan >> mapped >> done
