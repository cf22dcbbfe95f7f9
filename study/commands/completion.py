"""``python -m study completion``: the command line as a script that completes it in bash."""

import argparse
from collections.abc import Iterator

_SCRIPT = """\
# Completion of `python -m study` in bash; written by `python -m study completion`.
_study_complete() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= words=
    [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == study && COMP_CWORD -ge 3 ]] || return
    (( COMP_CWORD > 3 )) && command=${COMP_WORDS[3]}
    [[ $command == data ]] && (( COMP_CWORD > 4 )) && command="data ${COMP_WORDS[4]}"
    case "$command $previous" in
%s
    esac
    if [[ -z $words ]]; then
        case "$command" in
%s
        *) return ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    if [[ " $words " == *" demo "* ]]; then
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(
            compgen -f -X '!*.yaml' -- "$current"
            compgen -d -- "$current"
        )
        compopt -o filenames 2> /dev/null
    fi
}
complete -o bashdefault -o default -F _study_complete python python3
"""
"""What gives no words, such as the value of an option, completes as bash does: names of files."""


def bash_script(parser: argparse.ArgumentParser, studies: tuple[str, ...]) -> str:
    """Writes the script.

    Args:
        parser: Of the whole command line.
        studies: Studies that come with the project.
    """
    options: list[str] = []
    commands: list[str] = []
    for command, sub in _walk("", parser):
        words: list[str] = []
        for action in sub._actions:  # noqa: SLF001 - argparse has no other way to see what a parser takes
            words += action.option_strings or [str(each) for each in action.choices or ()]
            words += studies if action.dest == "study" else ()
            if action.option_strings and action.nargs != 0:
                said = f"words={' '.join(map(str, action.choices))!r}" if action.choices else "return"
                names = " | ".join(f'"{command} {name}"' for name in action.option_strings)
                options.append(f"        {names}) {said} ;;")
        commands.append(f'        "{command}") words="{" ".join(words)}" ;;')
    return _SCRIPT % ("\n".join(options), "\n".join(commands))


def _walk(command: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser and all below it, each with the words that lead to it."""
    yield command, parser
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, sub in action.choices.items():
                yield from _walk(f"{command} {name}".strip(), sub)
