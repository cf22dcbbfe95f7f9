"""``python -m study completion``: print the script by which a shell completes the command line."""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from study.declare import shipped_studies

NAME = "completion"
HELP = "print the script by which a shell completes this command"
EXAMPLES: tuple[str, ...] = ("> ~/.study-completion.bash", "--shell zsh > ~/.zfunc/_scaling-study")

_BASH_STUDIES = """\
_study_file() {{  # shtab takes the words of a function of this name as file names
    compgen -W "{names}" -- "$1"
    compgen -f -X '!*.yaml' -- "$1"
    compgen -d -- "$1"
}}
_study_or_imported_file() {{
    local record
    for record in results/*/import.json; do
        [[ -e $record ]] && record=${{record%/*}} && compgen -W "${{record##*/}}" -- "$1"
    done
    _study_file "$1"
}}"""
_BASH_COMMANDS = """
_study_complete() {
    if [[ ${COMP_WORDS[0]} != *scaling-study ]]; then
        [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == study ]] && (( COMP_CWORD > 2 )) || return
        COMP_WORDS=(scaling-study "${COMP_WORDS[@]:3}")
        (( COMP_CWORD -= 2 ))
    fi
    _shtab_scaling_study
}
complete -o bashdefault -o default -F _study_complete python python3 scaling-study
"""
"""Completes `python -m study` as well; if there are no words to offer, bash completes file names."""


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--shell",
        choices=("bash", "zsh", "fish", "tcsh"),
        default="bash",
        help="the shell; all but bash complete scaling-study alone, not python -m study (default: bash)",
    )


def run(options: Namespace) -> int:
    """Print the completion script."""
    import shtab

    names = " ".join(shipped_studies())
    study: dict[str, object] = {
        "bash": "_study_file",
        "zsh": f"{{compadd {names}; _files -g \\*.yaml}}",
        "fish": f"(string split ' ' '{names}'; __fish_complete_suffix .yaml)",
        "tcsh": f"({names})",
        "preamble": {"bash": _BASH_STUDIES.format(names=names)},
    }
    for _, parser in walk(options.parser):
        for action in parser._actions:  # noqa: SLF001 - argparse has no other way to see what a parser takes
            if action.dest in {"study", "others"}:
                imported = action.nargs is not None  # see `add_study_options`
                complete = study | ({"bash": "_study_or_imported_file"} if imported else {})
            elif action.choices is None and action.nargs != 0:
                complete = {**shtab.FILE, "bash": ""}
            else:
                continue
            action.complete = complete  # type: ignore[attr-defined]
    options.parser.prog = "scaling-study"
    print(shtab.complete(options.parser, options.shell) + (_BASH_COMMANDS if options.shell == "bash" else ""))
    return 0


def walk(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the parser and all parsers below it, each with the words that lead to it."""
    yield command, parser
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, sub in action.choices.items():
                yield from walk(sub, f"{command} {name}".strip())
