// Uploads a file with tus-js-client, through whatever cuts the line.
//
//   node tus.mjs ENDPOINT FILE [PARALLEL]
//
// Prints {"url", "retries"} when it is through.
import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { Upload } from "tus-js-client";

const [endpoint, path, parallel] = process.argv.slice(2);
let retries = 0;
const options = {
  endpoint,
  metadata: { filename: basename(path), filetype: "image/png" },
  retryDelays: Array(1000).fill(20),
  onShouldRetry: () => {
    retries += 1;
    return true;
  },
  onError: (error) => {
    console.error(String(error));
    process.exitCode = 1;
  },
  onSuccess: () => console.log(JSON.stringify({ url: upload.url, retries })),
};
if (parallel) options.parallelUploads = Number(parallel);
const upload = new Upload(createReadStream(path), options);
upload.start();
