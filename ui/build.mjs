// Bundles src/ into the folder named on the command line: the same bytes from the same sources.
import { build } from "esbuild";
import { cp, mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "../airflow_provider_kling/ui/static"));

await mkdir(target, { recursive: true });
await build({
  entryPoints: { kling: join(here, "src/main.tsx"), theme: join(here, "src/theme-first.ts") },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022", "chrome109", "firefox115", "safari16"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  charset: "utf8",
  logLevel: "warning",
  absWorkingDir: here,
});
for (const name of ["index.html", "icon.svg", "icon-dark.svg"]) {
  await cp(join(here, "src", name), join(target, name));
}
