#!/usr/bin/env python3
"""Takes each rule of taken_out.toml out, one at a time, and sees that its test fails.

    python3 tests/taken_out.py [WORDS OF A RULE]

A rule of the target `stations` is tried with a case of that suite, which needs root.

Works on a copy of the committed tree in a temporary folder, with a target folder beside it, so that the tree
itself is never touched. A rule whose test passes without it, or that does not build, is a failure. The last line is
`N of M rules: each test fails without its line`, and the exit code says whether all were caught.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(tree, rule, env):
    """`failed`, `passed`, `did not build` or `no such test`."""
    if rule["target"] == "stations":
        return run_case(tree, rule["test"].removeprefix("stations "), env)
    where = ["--lib"] if rule["target"] == "lib" else ["--test", rule["target"]]
    command = ["cargo", "test", "--locked", "--release", "--workspace", *where, "--", rule["test"]]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=1200)
    if "could not compile" in done.stderr:
        print(done.stderr[-2000:], file=sys.stderr)
        return "did not build"
    if re.search(rf"test .*{re.escape(rule['test'])} \.\.\. FAILED", done.stdout):
        return "failed"
    return "passed" if re.search(rf"test .*{re.escape(rule['test'])} \.\.\. ok", done.stdout) else "no such test"


def run_case(tree, case, env):
    """The same of a case of the stations; as root, with the programs that it starts."""
    build = ["cargo", "build", "--locked", "--release", "--workspace", "--bins"]
    done = subprocess.run(build, cwd=tree, env=env, capture_output=True, text=True, timeout=2400)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return "did not build"
    stations = Path(env["CARGO_TARGET_DIR"]) / "release" / "stations"
    done = subprocess.run([stations, "--case", case], env=env, capture_output=True, text=True, timeout=600)
    if re.search(rf"^stations: {re.escape(case)}: FAILED", done.stdout, re.M):
        return "failed"
    return "passed" if done.returncode == 0 else "no such test"


def main():
    rules = tomllib.loads((ROOT / "tests/taken_out.toml").read_text())["rule"]
    rules = [r for r in rules if all(word in r["rule"] for word in sys.argv[1:])]
    caught = 0
    with tempfile.TemporaryDirectory(prefix="taken-out-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "clone", "--quiet", "--local", str(ROOT), str(tree)], check=True)
        env = os.environ | {"CARGO_TERM_COLOR": "never"}
        env.setdefault("CARGO_TARGET_DIR", str(Path(folder) / "target"))
        for rule in rules:
            path = tree / rule["file"]
            text = path.read_text()
            if text.count(rule["line"]) != 1:
                print(f"{rule['rule']}: {rule['file']} has the line {text.count(rule['line'])} times, not once")
                continue
            path.write_text(text.replace(rule["line"], rule["by"]))
            how = run(tree, rule, env)
            path.write_text(text)
            caught += how == "failed"
            print(f"{rule['rule']}: without its line in {rule['file']} {rule['test']} {how}", flush=True)
    print(f"{caught} of {len(rules)} rules: each test fails without its line")
    return 0 if rules and caught == len(rules) else 1


if __name__ == "__main__":
    sys.exit(main())
