"""``python -m study completion``: print a bash script that completes the command line."""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from study.declare import shipped_studies

NAME = "completion"
HELP = "print a bash script that completes this command"
EXAMPLES: tuple[str, ...] = ("> ~/.study-completion.bash",)

_SCRIPT = """\
# Completion of `python -m study` and of `scaling-study` in bash; written by `python -m study completion`.
_study_imported() {
    local record
    for record in results/*/import.json; do
        [[ -e $record ]] && record=${record%%/*} && echo "${record##*/}"
    done
}
_study_complete() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= words= first=1
    if [[ ${COMP_WORDS[0]} != *scaling-study ]]; then
        [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == study ]] || return
        first=3
    fi
    (( COMP_CWORD >= first )) || return
    (( COMP_CWORD > first )) && command=${COMP_WORDS[first]}
    case "$command" in
        %s) (( COMP_CWORD > first + 1 )) && command+=" ${COMP_WORDS[first + 1]}" ;;
    esac
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
complete -o bashdefault -o default -F _study_complete python python3 scaling-study
"""
"""If there are no words to offer, such as for an option's value, bash completes file names."""


def add_options(_parser: ArgumentParser) -> None:
    """Add no option."""


def run(options: Namespace) -> int:
    """Print the completion script."""
    arguments, commands, groups = list[str](), list[str](), list[str]()
    for command, parser in walk(options.parser):
        words: list[str] = []
        for action in parser._actions:  # noqa: SLF001 - argparse has no other way to see what a parser takes
            words += action.option_strings or [str(each) for each in action.choices or ()]
            if action.dest == "study":
                words += shipped_studies()
                if action.nargs == "?":  # see `add_study_options`
                    words.append("$(_study_imported)")
            if action.option_strings and action.nargs != 0:
                answer = f"words={' '.join(map(str, action.choices))!r}" if action.choices else "return"
                names = " | ".join(f'"{command} {name}"' for name in action.option_strings)
                arguments.append(f"        {names}) {answer} ;;")
            if command and isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
                groups.append(command)
        commands.append(f'        "{command}") words="{" ".join(words)}" ;;')
    print(_SCRIPT % (" | ".join(groups), "\n".join(arguments), "\n".join(commands)), end="")
    return 0


def walk(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the parser and all parsers below it, each with the words that lead to it."""
    yield command, parser
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, sub in action.choices.items():
                yield from walk(sub, f"{command} {name}".strip())
