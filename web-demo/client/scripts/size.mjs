// Says what a page loads at once and with its first code or Room, minified and compressed, and fails above the budgets.
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

/** The part by the module it is imported as, and the most it may have when gzipped. */
const PARTS = [
  { name: "what a page with 1:1 calls loads", entry: "index.js", budget: 15_000 },
  { name: "Rooms, loaded with the first one", entry: "room.js", budget: 8_500 },
  { name: "phone calls, loaded with the first one", entry: "phone.js", budget: 1_000 },
  { name: "mailboxes and settings of telephony, loaded with their first use", entry: "telephony.js", budget: 1_000 },
  { name: "keys of encrypted Rooms, loaded with the first one", entry: "encryption.js", budget: 3_500 },
  { name: "moves between Calls and Rooms, loaded with the first one", entry: "handover.js", budget: 1_500 },
  { name: "the word list, loaded with the first code", entry: "words.js", budget: 7_500 },
];

const { outputFiles, metafile } = await build({
  entryPoints: [fileURLToPath(new URL("../index.js", import.meta.url))],
  bundle: true,
  minify: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  outdir: "out",
  write: false,
  metafile: true,
});

const outputs = Object.entries(metafile.outputs);
const bytesOf = (name) => outputFiles.find(({ path }) => path.endsWith(name)).contents;
const outputOf = (entry) => outputs.find(([, { entryPoint }]) => entryPoint?.split("/").at(-1) === entry)[0];

/** An output and what it imports without asking. */
function loadedWith(name, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  for (const { path, kind } of metafile.outputs[name].imports) if (kind === "import-statement") loadedWith(path, found);
  return found;
}

const loaded = new Set();
for (const { name, entry, budget } of PARTS) {
  const files = [...loadedWith(outputOf(entry))].filter((output) => !loaded.has(output));
  for (const output of files) loaded.add(output);
  const sum = (size) => files.reduce((total, output) => total + size(bytesOf(output)).length, 0);
  const gzip = sum((contents) => gzipSync(contents, { level: 9 }));
  console.log(`${name}: ${sum((contents) => contents)} B minified, ${gzip} B gzip, ${sum(brotliCompressSync)} B brotli`);
  if (gzip > budget) {
    console.error(`more than ${budget} B`);
    process.exitCode = 1;
  }
}
if (loaded.size !== outputs.length) throw new Error("some of the package is loaded with none of its parts");
