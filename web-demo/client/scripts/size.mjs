// Says what a page with 1:1 calls loads, minified and compressed, and fails above the budget.
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

const BUDGET = 15_000;

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
const isWords = ({ path }) => {
  const name = Object.keys(metafile.outputs).find((output) => path.endsWith(output));
  return Object.keys(metafile.outputs[name].inputs).some((input) => input.endsWith("words.js"));
};
const page = outputFiles.filter((file) => !isWords(file));
const words = outputFiles.filter(isWords);

const gzip = (files) => files.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0);
const brotli = (files) => files.reduce((sum, { contents }) => sum + brotliCompressSync(contents).length, 0);
const minified = (files) => files.reduce((sum, { contents }) => sum + contents.length, 0);
for (const [name, files] of [
  ["what the page loads", page],
  ["the word list, loaded with the first code", words],
  ["both", outputFiles],
]) {
  console.log(`${name}: ${minified(files)} B minified, ${gzip(files)} B gzip, ${brotli(files)} B brotli`);
}
if (gzip(page) > BUDGET) {
  console.error(`more than ${BUDGET} B`);
  process.exitCode = 1;
}
