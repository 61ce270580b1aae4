#!/usr/bin/env bash
# One .env, read by Bun, Node.js, the npm package dotenv and, where it is installed, Docker's own client.
#
# The guess: single quotes keep a value as it is, in every reader, as in a shell; and a # begins a comment only after a
# blank, as in a shell. What differs is that Docker keeps the quotes.
#
# What happens (Bun 1.4.5, Node.js 20, dotenv 17.2.3, Docker 28.2):
# - Bun replaces $NAME within single quotes too: 'pa$word' becomes pa, without a word. Only \$ is a $. Node.js and dotenv
#   keep it.
# - An unquoted # cuts the value in Bun, Node.js and dotenv even without a blank before it: abc#def becomes abc.
# - Docker keeps quotes, # and comments behind a value, and takes off the line end of a Windows file.
# So half a password arrives, and is refused far away.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund bun@1.4.5 dotenv@17.2.3

cat >sample.env <<'FILE'
DOLLAR='pa$word'
ESCAPED='pa\$word'
HASH=abc#def
QUOTED='abc#def'
COMMENT=abc # a comment
FILE
printf 'WINDOWS=abc\r\n' >>sample.env

cat >print.cjs <<'FILE'
const names = ["DOLLAR", "ESCAPED", "HASH", "QUOTED", "COMMENT", "WINDOWS"];
module.exports = (reader, of) => console.log(reader, JSON.stringify(names.map((name) => of[name])));
FILE
cat >seen.cjs <<'FILE'
require("./print.cjs")(process.versions.bun ? "bun" : "node", process.env);
FILE
cat >dotenv.cjs <<'FILE'
require("./print.cjs")("dotenv", require("dotenv").parse(require("fs").readFileSync("sample.env")));
FILE
# A daemon that only listens to what the client would create.
cat >docker.cjs <<'FILE'
const { createServer } = require("http");
const { spawn } = require("child_process");
const server = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    if (request.url.includes("/containers/create")) {
      const of = Object.fromEntries(JSON.parse(body).Env.map((one) => one.split(/=(.*)/s)));
      require("./print.cjs")("docker", of);
    }
    response.writeHead(request.method === "POST" ? 201 : 200, { "Api-Version": "1.50", "Content-Type": "application/json" });
    response.end(request.url.includes("_ping") ? "OK" : '{"Id":"none","Warnings":[]}');
  });
});
server.listen(0, "127.0.0.1", () => {
  const host = `tcp://127.0.0.1:${server.address().port}`;
  const docker = spawn("docker", ["create", "--env-file", "sample.env", "none"], {
    env: { PATH: process.env.PATH, HOME: process.cwd(), DOCKER_HOST: host },
    stdio: ["ignore", "ignore", "inherit"],
    timeout: 20_000,
  });
  docker.on("exit", (code) => process.exit(code ?? 1));
});
FILE

clean=(env -i "PATH=$PATH" "HOME=$directory")
{
  "${clean[@]}" node_modules/.bin/bun --env-file=sample.env seen.cjs
  "${clean[@]}" node --env-file=sample.env seen.cjs
  "${clean[@]}" node dotenv.cjs
  if command -v docker >/dev/null; then "${clean[@]}" node docker.cjs; else echo "docker is not here" >&2; fi
} | tee seen

cat >expected <<'FILE'
bun ["pa","pa$word","abc","abc#def","abc","abc"]
node ["pa$word","pa\\$word","abc","abc#def","abc","abc"]
dotenv ["pa$word","pa\\$word","abc","abc#def","abc","abc"]
docker ["'pa$word'","'pa\\$word'","abc#def","'abc#def'","abc # a comment","abc"]
FILE
command -v docker >/dev/null || sed -i '/^docker /d' expected
diff expected seen || { echo "the behaviour has changed" >&2; exit 1; }
