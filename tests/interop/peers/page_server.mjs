// Serves the page and, under the same origin, the file server: Plik lets no page of another in.
// Arguments: the folder of page.html and page.js, and the file server's URL. Prints its own.

import { createReadStream } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { pipeline } from "node:stream";

const [folder, fileserver] = process.argv.slice(2);
const FILES = { "/page.html": "text/html", "/page.js": "text/javascript" };

const server = createServer((incoming, answer) => {
  const [path] = incoming.url.split("?");
  if (Object.hasOwn(FILES, path)) {
    answer.setHeader("Content-Type", FILES[path]);
    createReadStream(join(folder, path)).pipe(answer);
  } else {
    forward(incoming, answer);
  }
});

function forward(incoming, answer) {
  const { method, headers, url } = incoming;
  const outgoing = request(fileserver + url, { method, headers }, (found) => {
    answer.writeHead(found.statusCode, found.headers);
    // A body that breaks off there breaks off here.
    pipeline(found, answer, () => {});
  });
  outgoing.on("error", () => answer.destroy());
  incoming.pipe(outgoing);
}

server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
