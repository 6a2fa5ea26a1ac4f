"""`python -m paca_jax.plan`: see `paca plan --help`."""

from absl import app

from paca_jax.cli import config_flags, plan
from paca_jax.errors import told_on_the_command_line

if __name__ == "__main__":
    with told_on_the_command_line():
        app.run(plan.main, flags_parser=config_flags.parse_flags)
