// Compiles contracts/src with the wasm solc of node_modules, and writes one artifact per deployable contract.
// Usage: node build.cjs [output folder]
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const DEPLOYABLE = ["CapacityVault", "Diem", "EpochBook", "FreeholdTimelock", "Hold", "Prepaid", "Staking", "Strip", "Strips", "TwapOracle"];
const source = path.join(__dirname, "src");
const output = path.resolve(process.argv[2] ?? path.join(__dirname, "../src/freehold/chain/artifacts"));

const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 1000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
};
const input = {
  language: "Solidity",
  sources: Object.fromEntries(
    fs
      .readdirSync(source)
      .filter((name) => name.endsWith(".sol"))
      .sort()
      .map((name) => [name, { content: fs.readFileSync(path.join(source, name), "utf8") }]),
  ),
  settings: { ...settings, outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"] } } },
};

function read(name) {
  const file = name.startsWith("vendor/") ? path.join(__dirname, name) : require.resolve(name, { paths: [__dirname] });
  return { contents: fs.readFileSync(file, "utf8") };
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

// Where the code that stays on the chain is in the creation code, and where in it the constructor puts immutables (32 bytes each).
function runtime({ bytecode, deployedBytecode }) {
  const at = bytecode.object.indexOf(deployedBytecode.object);
  if (at < 0 || at % 2 !== 0) throw new Error("the runtime code isn't in the creation code");
  const places = Object.values(deployedBytecode.immutableReferences ?? {}).flat();
  if (places.some(({ length }) => length !== 32)) throw new Error("an immutable isn't a word");
  const immutables = places.map(({ start }) => start).sort((one, other) => one - other);
  return { start: at / 2, length: deployedBytecode.object.length / 2, immutables };
}

const result = JSON.parse(solc.compile(JSON.stringify(input), { import: read }));
const messages = (result.errors ?? []).filter(
  ({ severity, sourceLocation }) => severity === "error" || !sourceLocation?.file.startsWith("@openzeppelin/"),
);
for (const message of messages) process.stderr.write(message.formattedMessage);
if (messages.length > 0) process.exit(1);

fs.mkdirSync(output, { recursive: true });
for (const name of DEPLOYABLE) {
  const { abi, evm } = result.contracts[`${name}.sol`][name];
  const compiler = { name: "solc", version: solc.version(), ...settings };
  const artifact = sorted({ contract: name, abi, bytecode: `0x${evm.bytecode.object}`, compiler, runtime: runtime(evm) });
  fs.writeFileSync(path.join(output, `${name}.json`), `${JSON.stringify(artifact, null, 1)}\n`);
}
