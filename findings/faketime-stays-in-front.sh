#!/usr/bin/env bash
# A guess: `faketime -f -14d PROGRAM` becomes the program, as `env` and `nice` do. So its process id is that of the program,
# and a supervisor or a test that stops this id stops the program.
#
# What happens: faketime stays in front of the program as its parent and passes no signal on. SIGTERM ends faketime alone;
# the program runs on, without a parent, with its files locked and its ports open. Who needs the program's own id sets
# LD_PRELOAD to libfaketime.so.1 and FAKETIME himself.
#
# Seen with faketime 0.9.10-2.1 (Debian 12). Exits with 1 when it is no longer so.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get download -q faketime=0.9.10-2.1 libfaketime=0.9.10-2.1 >/dev/null
for package in ./*.deb; do dpkg -x "$package" .; done
# The command looks for its library at a fixed place. Without it the program has the true time, which changes nothing here.
./usr/bin/faketime -f -14d sleep 20 2>/dev/null &
command=$!
sleep 1
program=$(cat "/proc/$command/task/$command/children")
echo "faketime is process $command; below it: ${program:-none}"
kill -TERM "$command"
wait "$command" || true
sleep 1
if [ -n "$program" ] && kill -0 $program 2>/dev/null; then
  echo "after SIGTERM to faketime the program runs on"
  kill $program
else
  echo "after SIGTERM to faketime nothing is left: this has changed"
  exit 1
fi
