/* What is chosen. A choice that the pointer makes by hovering ends when it leaves. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const BARS = 8;
const KEPT = 8; // blocks whose decoded maps stay in memory
const element = (id) => document.getElementById(id);
const stageOf = (block) => block.split("/")[0];
const titled = (name) => name.charAt(0).toUpperCase() + name.slice(1).replace(/(\d)/, " $1");
const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)}%`;
const percentOfMap = (value) => `${Number((100 * value).toPrecision(2))}%`; // of 3136 patches, say, each has little

const chosen = { picture: 0, block: DATA.blocks[0].name, head: -1, cell: 0, cluster: 0, mode: "patch", off: false };
const wanted = { picture: 0, block: chosen.block }; // what the maps are being decoded of
let hovered = null; // {mode, cell} or {mode, cluster}
let maps = null; // the BlockMaps that are shown
const decoded = new Map(); // their promises, by picture and block

const picture = () => DATA.pictures[chosen.picture];
const blockNamed = (name) => DATA.blocks.find((each) => each.name === name);
const block = () => blockNamed(chosen.block);
const without = () => picture().without[block().owner];
const shown = () => ({ ...chosen, ...hovered });

function clusterName(cluster) {
  return chosen.block === "head" ? `${cluster} ${DATA.classNames[cluster]}` : String(cluster);
}

function cellName(cell) {
  const place = `row ${Math.floor(cell / maps.columns)}, column ${cell % maps.columns}`;
  return `${maps.side > 1 ? "cell" : "patch"} in ${place}`;
}

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/* Fills a group of radio buttons; those that are the same stay, and with them the keyboard's focus. */
function fillOptions(id, options, current, choose) {
  const group = document.querySelector(`#${id} .options`);
  const values = JSON.stringify(options.map(({ value }) => value));
  if (group.dataset.values === values) {
    options.forEach(({ value }, index) => {
      group.children[index].firstChild.checked = value === current;
    });
    return;
  }
  group.dataset.values = values;
  const labels = options.map(({ value, text, image }) => {
    const input = make("input", { type: "radio", name: id, value, checked: value === current });
    input.addEventListener("change", () => choose(value));
    return make("label", {}, input, image ? make("img", { src: image, alt: text }) : make("span", { textContent: text }));
  });
  group.replaceChildren(...labels);
}

function fillControls() {
  const stages = [...new Set(DATA.blocks.map((each) => stageOf(each.name)))];
  fillOptions(
    "pictures",
    DATA.pictures.map((each, value) => ({ value, text: each.name, image: each.source })),
    chosen.picture,
    (value) => choosePlace({ picture: value }),
  );
  fillOptions(
    "stages",
    stages.map((value) => ({ value, text: value.replace("stage", "") })),
    stageOf(chosen.block),
    (value) => choosePlace({ block: DATA.blocks.find((each) => stageOf(each.name) === value).name }),
  );
}

function fillBlocks() {
  const blocks = DATA.blocks.filter((each) => stageOf(each.name) === stageOf(chosen.block));
  fillOptions(
    "blocks",
    blocks.map(({ name }) => ({ value: name, text: name === "head" ? "head" : name.split("block")[1] })),
    chosen.block,
    (value) => choosePlace({ block: value }),
  );
}

function fillHeads() {
  const heads = [
    { value: -1, text: "Mean" },
    ...Array.from({ length: maps.heads }, (_, value) => ({ value, text: String(value) })),
  ];
  fillOptions("heads", heads, chosen.head, (value) => {
    chosen.head = value;
    show();
    announce();
  });
}

/* Changes the picture or the block. The place of the patch in the picture stays, the cluster as far as there is such a one. */
async function choosePlace(change) {
  Object.assign(wanted, change);
  const { picture: number, block: name } = wanted;
  const { attention, assignments } = DATA.pictures[number];
  const { owner } = blockNamed(name);
  const key = `${number} ${name}`;
  if (!decoded.has(key)) decoded.set(key, BlockMaps.decode(attention[name], assignments[owner]));
  const decoding = decoded.get(key);
  if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  const found = await decoding;
  if (number !== wanted.picture || name !== wanted.block) return; // another choice came meanwhile
  const sameClusters = maps && number === chosen.picture && owner === block().owner;
  const [row, column] = maps
    ? [(Math.floor(chosen.cell / maps.columns) + 0.5) / maps.rows, ((chosen.cell % maps.columns) + 0.5) / maps.columns]
    : [0.5, 0.5];
  maps = found;
  Object.assign(chosen, wanted);
  hovered = null;
  chosen.cell = Math.floor(row * maps.rows) * maps.columns + Math.floor(column * maps.columns);
  chosen.head = Math.min(chosen.head, maps.heads - 1);
  if (!sameClusters || chosen.cluster >= maps.clusters) chosen.cluster = indexOfLargest(maps.readBy(chosen.cell, chosen.head));
  fillBlocks();
  fillHeads();
  fillTiles();
  showPicture();
  show();
  announce();
}

function choosePatch(cell) {
  Object.assign(chosen, { mode: "patch", cell });
  hovered = null;
  show();
  announce();
}

function chooseCluster(cluster) {
  Object.assign(chosen, { mode: "cluster", cluster });
  hovered = null;
  show();
  announce();
}

function hover(change) {
  hovered = change;
  show();
}
