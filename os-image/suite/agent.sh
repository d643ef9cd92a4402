#!/bin/sh
# The suite's end in the guest: takes commands from the second serial port ($PORT) and answers. A line is a mark and a script in
# base64; the answer is the word `answer`, the mark, the script's exit code and what it printed. It says first that it is
# ready: whatever came earlier, firmware and boot loader would take for keys. It stands on the suite's own disk, and runs only
# where a kernel image lets credentials in: never on an image in service.
exec <"$PORT"
exec >"$PORT" 2>/dev/null
stty raw -echo
echo ready
while read -r mark script; do
  echo "$script" | base64 -d >/run/suite.sh 2>/dev/null || continue
  sh /run/suite.sh </dev/null >/run/suite.out 2>&1
  echo "answer $mark $? $(base64 -w 0 /run/suite.out)"
done
