"""`completion SHELL`: prints what completes commands, flags and their values in bash, zsh or fish.

    source <(intact completion bash)                        in ~/.bashrc
    source <(intact completion zsh)                         in ~/.zshrc, after compinit
    intact completion fish > ~/.config/fish/completions/intact.fish

SHELL is bash, zsh or fish.
"""

from __future__ import annotations

from absl import flags

from ir.errors import OptionError
from tools import benchmark, convert, evaluate, inspect, survey
from tools._command import console, run_command

COMMANDS = {"convert": convert, "inspect": inspect, "evaluate": evaluate, "benchmark": benchmark, "survey": survey}

_BASH = """_intact() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} flag= words=
  [ "$word" = = ] && flag=$before word=
  [ "$before" = = ] && flag=${{COMP_WORDS[COMP_CWORD-2]}}
  if [ $COMP_CWORD = 1 ]; then words="{commands}"
  else case "${{COMP_WORDS[1]}} ${{flag:-$before}}" in
{values}
    *) [ -z "$flag" ] && [[ $word == -* ]] && case ${{COMP_WORDS[1]}} in
{flags}
    esac ;;
  esac; fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  [[ $COMPREPLY == --*= ]] && compopt -o nospace
  return 0
}}
complete -o default -F _intact intact
"""


def main(arguments: list[str]) -> None:
    """Prints the script of the shell that is named."""
    shell = arguments[0] if len(arguments) == 1 else ""
    if shell not in ("bash", "zsh", "fish"):
        raise OptionError(
            expected="bash, zsh or fish",
            found=" ".join(arguments) or "none",
            where="completion",
            fix="run intact completion bash",
        )
    console.print(_fish() if shell == "fish" else _bash(shell), markup=False, soft_wrap=True, end="")


def flags_of(name: str) -> list[flags.Flag]:
    """The flags of a command, which are defined only while it runs."""
    before = set(flags.FLAGS)
    COMMANDS[name].define_flags()
    own = [flags.FLAGS[flag] for flag in flags.FLAGS if flag not in before]
    for flag in own:
        delattr(flags.FLAGS, flag.name)
    return own


def _values(flag: flags.Flag) -> list[str]:
    return list(getattr(flag.parser, "enum_values", None) or ())


def _bash(shell: str) -> str:
    names = {name: flags_of(name) for name in COMMANDS}
    values = [
        f'    "{name} --{flag.name}") words="{" ".join(_values(flag))}" ;;'
        for name, own in names.items()
        for flag in own
        if _values(flag)
    ]
    listed = [
        f'      {name}) words="{" ".join(f"--{f.name}" if f.boolean else f"--{f.name}=" for f in own)} --help" ;;'
        for name, own in names.items()
    ]
    text = _BASH.format(commands=" ".join([*names, "completion"]), values="\n".join(values), flags="\n".join(listed))
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text


def _fish() -> str:
    lines = [f"complete -c intact -n __fish_use_subcommand -f -a '{' '.join([*COMMANDS, 'completion'])}'"]
    for name in COMMANDS:
        for flag in flags_of(name):
            given = "" if flag.boolean else f" -x -a '{' '.join(_values(flag))}'" if _values(flag) else " -r"
            lines.append(f"complete -c intact -n '__fish_seen_subcommand_from {name}' -l {flag.name}{given}")
    return "\n".join(lines) + "\n"


def run() -> None:
    """Entry point."""
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
