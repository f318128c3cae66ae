// Compiles Morpho Blue and its mock rate model as its authors do: solc 0.8.19, via IR, 999,999 runs.
// Usage: node morpho.cjs SOLJSON SOURCES OUTPUT
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const [soljson, root, output] = process.argv.slice(2);
const module_ = require(path.resolve(soljson));
const compile = module_.cwrap("solidity_compile", "string", ["string", "number", "number"]);
const WANTED = { "src/Morpho.sol": "Morpho", "src/mocks/IrmMock.sol": "IrmMock" };

/** The file at `name` and everything that it imports: this compiler can't ask for a file. */
function collect(name, sources) {
  if (sources[name]) return sources;
  const content = fs.readFileSync(path.join(root, name), "utf8");
  sources[name] = { content };
  for (const [, imported] of content.matchAll(/^\s*(?:import|\})[^";]*"([^"]+)";/gm))
    collect(path.posix.normalize(path.posix.join(path.posix.dirname(name), imported)), sources);
  return sources;
}

const sources = {};
for (const name of Object.keys(WANTED)) collect(name, sources);
const settings = {
  viaIR: true,
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 999999, details: { yul: true } },
  metadata: { bytecodeHash: "none" },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
};
const result = JSON.parse(compile(JSON.stringify({ language: "Solidity", sources, settings }), 0, 0));
const errors = (result.errors ?? []).filter(({ severity }) => severity === "error");
for (const { formattedMessage } of errors) process.stderr.write(formattedMessage);
if (errors.length > 0) process.exit(1);
const made = Object.fromEntries(
  Object.entries(WANTED).map(([file, name]) => {
    const { abi, evm } = result.contracts[file][name];
    return [name, { abi, bytecode: `0x${evm.bytecode.object}` }];
  }),
);
fs.writeFileSync(output, JSON.stringify(made));
