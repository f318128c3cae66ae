// What `make audit` gives to the tools, for neither takes the npm solc as it is.
//   node compile.cjs slither FILE   the sources as one standard-JSON input
//   node compile.cjs halmos FOLDER  proofs and sources compiled, in the layout of forge's out/
//   node compile.cjs --version | --standard-json   as a command-line solc, which slither starts itself
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const root = path.join(__dirname, "..");
const solc = require(path.join(root, "node_modules", "solc"));
const SETTINGS = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 1000 },
  remappings: ["@openzeppelin/=node_modules/@openzeppelin/"],
};

/** The file at `name`, and everything that it imports, by name relative to contracts/. */
function collect(name, sources) {
  if (sources[name]) return sources;
  const content = fs.readFileSync(path.join(root, name), "utf8");
  sources[name] = { content };
  for (const [, imported] of content.matchAll(/^\s*import\s[^"]*"([^"]+)"/gm)) {
    const inPackage = imported.startsWith("@") ? `node_modules/${imported}` : imported;
    const here = path.posix.dirname(name);
    collect(imported.startsWith(".") ? path.posix.normalize(path.posix.join(here, imported)) : inPackage, sources);
  }
  return sources;
}

function input(folders, outputSelection) {
  const sources = {};
  for (const folder of folders)
    for (const name of fs.readdirSync(path.join(root, folder)).sort()) collect(`${folder}/${name}`, sources);
  return JSON.stringify({ language: "Solidity", sources, settings: { ...SETTINGS, outputSelection } });
}

function halmos(folder) {
  const wanted = ["abi", "metadata", "storageLayout", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers"];
  const result = JSON.parse(solc.compile(input(["src", "audit/proofs"], { "*": { "*": wanted, "": ["ast"] } })));
  const errors = (result.errors ?? []).filter(({ severity }) => severity === "error");
  for (const { formattedMessage } of errors) process.stderr.write(formattedMessage);
  if (errors.length > 0) process.exit(1);
  for (const [file, contracts] of Object.entries(result.contracts)) {
    const target = path.join(folder, path.basename(file));
    fs.mkdirSync(target, { recursive: true });
    for (const [name, { abi, evm, metadata, storageLayout }] of Object.entries(contracts)) {
      const { ast, id } = result.sources[file];
      const hex = (code) => ({ ...code, object: `0x${code.object}` });
      const artifact = {
        abi, storageLayout, ast, id,
        metadata: JSON.parse(metadata || '{"compiler":{"version":"0.8.37"}}'),
        methodIdentifiers: evm.methodIdentifiers,
        bytecode: hex(evm.bytecode),
        deployedBytecode: hex(evm.deployedBytecode),
      };
      fs.writeFileSync(path.join(target, `${name}.json`), JSON.stringify(artifact));
    }
  }
}

const [what, where] = process.argv.slice(2);
if (process.argv.includes("--version")) {
  const version = solc.version().replace(/\.Emscripten.*/, ".Linux.g++");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (process.argv.includes("--standard-json")) {
  fs.writeSync(1, solc.compile(fs.readFileSync(0, "utf8")));
} else if (what === "slither") {
  fs.writeFileSync(where, input(["src"], { "*": { "*": ["*"], "": ["ast"] } }));
} else if (what === "halmos") {
  halmos(where);
} else {
  process.stderr.write("usage: node compile.cjs slither FILE | halmos FOLDER\n");
  process.exit(2);
}
