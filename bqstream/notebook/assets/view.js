// The live view of a stream. The module begins with uPlot and the drawing code that it shares with the collector's page.
// It draws what the kernel sends, and keeps nothing of its own but what is chosen in it.
const {
  STATES, amount, binned, bytes, countdown, counted, drawTimeline, listEvents, listGaps, listRows, make, makeChart, offer, put,
  rate, seconds, span, whole,
} = bqstreamDrawing;
const KEPT = 900; // seconds of samples, as the kernel keeps them
const POINTS = 600; // of the column that is drawn
const ROWS = 20; // of a table
const SHOWN = 10; // of those
const YOUNG = 20; // seconds that the charts show at least
const SILENT = 5000; // milliseconds without a word, where one is due every second

// The view's frame. It is made element by element, since VS Code takes no HTML as text (Trusted Types).
const group = (id, title, name, options, chosen) => make("fieldset", { class: "choice", id }, make("legend", { class: "hidden" }, title),
  ...options.map(([value, text]) => {
    const input = make("input", { type: "radio", name, value });
    input.checked = value === chosen;
    return make("label", {}, input, make("span", {}, text));
  }));
const tile = (title, id, note) => make("div", {}, make("dt", {}, title), make("dd", { id }, "–"), make("dd", { class: "note", ...(typeof note === "string" ? { id: note } : {}) }, ...(typeof note === "string" ? [] : [note])));
const card = (...children) => make("div", { class: "card" }, ...children);
const pair = (...children) => make("div", { class: "pair" }, ...children);
const head = (...children) => make("div", { class: "head" }, ...children);
const title = (...children) => make("h2", {}, ...children);
const chart = (id, label) => make("div", { id, class: "chart", role: "group", "aria-label": label });
const scroll = (tag, name, label, attributes, ...children) => make(tag, { class: name, tabindex: "0", role: "region", "aria-label": label, ...attributes }, ...children);

function frame() {
  const meter = make("meter", { id: "left", min: "0", max: "1", value: "1", "aria-label": "What is left of the token's life" });
  const tables = make("fieldset", { class: "choice", id: "tables", hidden: "hidden" }, make("legend", { class: "hidden" }, "Cube"));
  const marks = [["handover", "hand-over"], ["lost", "link lost"], ["closing", "gap open"], ["closed", "gap closed"], ["hole", "hole"]];
  return make("section", { class: "view", "aria-label": "Live view of a stream" },
    make("header", {},
      make("span", { id: "state", class: "pill", role: "status" }, "starting"), make("strong", { id: "name" }), make("span", { class: "quiet", id: "since" }),
      group("window", "Time shown in the charts", "window", [["60", "1 min"], ["300", "5 min"], ["900", "15 min"]], "300"),
      make("button", { id: "pause", type: "button", disabled: "disabled" }, "Pause")),
    make("p", { id: "gone", role: "alert", hidden: "hidden" }),
    make("dl", { class: "tiles", "aria-label": "Now" },
      tile("Rows a second", "rate", "seen"), tile("Behind the chain", "lag", "buffer"), tile("Token", "token", meter),
      tile("Hand-overs", "handovers", "reconnects"), tile("Gaps", "gapcount", "holes"), tile("Only viewed", "viewed", "read")),
    pair(
      card(head(title("Rows a second")), chart("rates", "Rows a second over time"),
        make("h2", { class: "second" }, "Seconds behind the chain"), chart("lags", "Seconds behind the chain over time")),
      card(head(title(make("label", { for: "column" }, "Column")), make("select", { id: "column" }),
        group("scale", "Scale of the column", "scale", [["linear", "linear"], ["log", "log"]], "linear")), chart("points", "The column's values over time"))),
    card(head(title("Token, links and gaps"), make("p", { class: "key quiet" }, ...marks.map(([name, text]) => make("span", { class: `k ${name}` }, text)))),
      make("div", { id: "timeline", class: "timeline" })),
    card(head(title("Newest rows"), tables),
      scroll("div", "scroll rows", "Newest rows", {}, make("table", { id: "rows", class: "last" }, make("thead"), make("tbody")))),
    pair(
      card(title("Events"), scroll("ol", "list scroll", "Events", { id: "events" })),
      card(title("Gaps"), scroll("ol", "list scroll", "Gaps", { id: "gaps" }))));
}

// Whether the notebook is dark: JupyterLab, VS Code and Colab say so each in their own way; else the system does.
function scheme() {
  const { body, documentElement: root } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false" ? "dark" : "light";
  const kind = body.dataset.vscodeThemeKind;
  if (kind) return /light/.test(kind) ? "light" : "dark";
  if (root.getAttribute("theme")) return root.getAttribute("theme") === "dark" ? "dark" : "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

// What is known, of which the kernel tells the changes; a series grows by what is new, and is cut at its end.
class Known {
  constructor() { this.parts = null; }

  take({ kind, parts }) {
    if (kind === "picture") { this.parts = parts; return true; }
    if (this.parts === null) return false;
    const before = this.parts;
    this.parts = { ...before, ...parts };
    for (const [series, most] of [["samples", KEPT], ["points", POINTS], ["rows", ROWS]]) {
      if (!parts[series]) continue;
      this.parts[series] = Object.fromEntries(Object.entries(parts[series]).map(
        ([name, added]) => [name, [...(before[series][name] || []), ...added].slice(-most)]));
    }
    return true;
  }
}

// The lines of a logarithmic scale stand at powers of ten, six of them or so.
function powers(chart, splits) {
  const shown = splits.map((value) => Math.log10(value)).filter((power) => Math.abs(power - Math.round(power)) < 1e-6);
  const step = Math.ceil(shown.length / 6);
  const first = Math.round(shown[0]);
  return splits.map((value) => {
    const power = Math.log10(value), whole = Math.round(power);
    return Math.abs(power - whole) < 1e-6 && (whole - first) % step === 0 ? value : null;
  });
}

function scaled(scale) {
  if (scale === "log") {
    const range = (chart, low, high) => (low > 0 ? uPlot.rangeLog(low, high === low ? low * 10 : high, 10, false) : [0.1, 10]);
    return { y: { distr: 3, range }, marks: powers };
  }
  const range = (chart, low, high) => {
    if (low === null) return [0, 1];
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
  };
  return { y: { range } };
}

// The values, and the median of those that came at once, at the last of them.
function columnData(points, scale) {
  const shown = scale === "log" ? points.filter(([, , value]) => value > 0) : points;
  const xs = shown.map(([, at]) => at), values = shown.map(([, , value]) => value), medians = new Array(xs.length).fill(null);
  for (let start = 0; start < xs.length;) {
    let end = start;
    while (end < xs.length && xs[end] - xs[start] < 0.5) end += 1;
    const sorted = values.slice(start, end).sort((one, other) => one - other);
    medians[end - 1] = sorted[Math.floor(sorted.length / 2)];
    start = end;
  }
  return [xs, values, medians];
}

class View {
  constructor(model, host) {
    this.model = model;
    this.host = host;
    this.root = host.attachShadow({ mode: "open" });
    this.root.append(make("style", {}, model.get("_style")));
    this.root.append(frame());
    this.known = new Known();
    this.heard = Date.now();
    this.charts = [];
    this.table = null;
    this.scales = {}; // by column, where one was chosen
    this.length = 300;
    host.dataset.theme = scheme();
    this.$ = (id) => this.root.getElementById(id);
    this.root.addEventListener("change", (event) => this.chosen(event.target));
    this.$("pause").addEventListener("click", () => {
      this.$("pause").disabled = true; // until the kernel has answered
      model.send({ kind: this.known.parts.state === "paused" ? "resume" : "pause" });
    });
  }

  get picture() { return this.known.parts; }

  take(message) {
    if (!this.known.take(message)) return;
    this.heard = Date.now();
    this.silence();
    this.showState();
    this.showTiles();
    this.showColumns();
    const { parts } = message;
    if (parts.events) listEvents(this.$("events"), parts.events);
    if (parts.gaps) listGaps(this.$("gaps"), parts.gaps);
    if (parts.rows) this.showRows();
    if (!document.hidden) this.draw();
  }

  draw() {
    if (!this.picture || !this.host.clientWidth) return;
    this.showCharts();
    drawTimeline(this.$("timeline"), this.picture, this.picture.at, this.span());
  }

  // ------------------------------------------------------------------ now

  showState() {
    const { state, why, client, name, at, started } = this.picture;
    const words = { paused: ["paused", "warn"], ended: ["ended", ""], failed: [why ? "failed" : "ended", "bad"] };
    const [text, tone] = words[state] || STATES[client.state] || [client.state, ""];
    put(this.$("state"), text, tone);
    put(this.$("name"), name);
    put(this.$("since"), state === "failed" ? why : `watched for ${span(at - started)}`, state === "failed" ? "bad" : "");
    const button = this.$("pause"), over = ["ended", "failed"].includes(state);
    button.disabled = over;
    button.textContent = state === "paused" ? "Resume" : "Pause";
    button.title = state === "paused" ? "Subscribe again, and close the gap" : "Unsubscribe for a while";
  }

  showTiles() {
    const { client, stream, gaps, tokens, at, seen, viewed, read, lag, state } = this.picture;
    const say = (id, text, tone) => put(this.$(id), text, tone);
    const over = ["ended", "failed"].includes(state);
    say("rate", rate(this.picture.rate));
    say("seen", `${counted(seen, "row")} seen`);
    say("lag", lag === null ? "–" : span(lag));
    say("buffer", stream && stream.parked ? "read too slowly" : stream ? `${bytes(stream.bytes)} waiting` : "", stream && stream.parked ? "bad" : "");
    const expires = seconds(client.token_expires_at);
    say("token", client.state === "closed" ? "–" : expires ? countdown(expires - at) : "no expiry");
    const newest = tokens.at(-1);
    const life = newest && newest.expires ? seconds(newest.expires) - seconds(newest.start) : 0;
    this.$("left").value = expires && life ? Math.max(0, Math.min(1, (expires - at) / life)) : 1;
    say("handovers", whole.format(client.rotations));
    const doubt = stream && stream.unproven ? "one unproven" : "";
    say("reconnects", doubt || (client.reconnects ? counted(client.reconnects, "reconnect") : "no reconnect"), doubt ? "warn" : "");
    const holes = gaps.filter(({ gap }) => gap.reason !== null).length;
    const closing = stream && stream.closing;
    say("gapcount", whole.format(gaps.length));
    say("holes", holes ? counted(holes, "hole") : state === "paused" ? "one is open" : closing ? "closing one" : "no hole", holes ? "bad" : closing || state === "paused" ? "warn" : "");
    say("viewed", whole.format(viewed));
    say("read", over ? "" : read ? "a reader reads" : "nobody reads");
  }

  showColumns() {
    const { columns, column } = this.picture;
    const select = this.$("column");
    if (select.dataset.names !== columns.join("\n")) {
      select.dataset.names = columns.join("\n");
      select.replaceChildren(...columns.map((name) => make("option", { value: name }, name.replaceAll("_", " "))));
      select.disabled = !columns.length;
    }
    if (column !== null && this.root.activeElement !== select) select.value = column;
  }

  showRows() {
    const names = Object.keys(this.picture.rows);
    if (!names.includes(this.table)) this.table = names[0] ?? null;
    offer(this.$("tables"), "table", names, this.table);
    const rows = (this.picture.rows[this.table] || []).slice(-SHOWN).map(([, cells]) => [this.table, cells]);
    listRows(this.$("rows"), rows, "No row has come in yet.");
  }

  // ------------------------------------------------------------------ charts

  // A view that is young does not fill what was chosen: what there is of it is shown.
  span() { return Math.min(this.length, Math.max(YOUNG, this.picture.at - this.picture.started)); }

  showCharts() {
    const { column, points, samples, at } = this.picture;
    const key = `bqstream-${this.model.get("_key")}`;
    const shown = () => ({ now: this.picture.at, length: this.span(), gaps: this.picture.gaps });
    if (!this.charts.length) {
      const line = (colour, now) => [{ name: this.picture.name, colour, filled: true, now }];
      this.rates = makeChart(this.$("rates"), { height: 128, frame: shown, key, lines: line(0, () => this.picture.rate), label: (value) => `${rate(value)}/s` });
      this.lags = makeChart(this.$("lags"), { height: 92, space: 22, frame: shown, key, lines: line(4, () => this.picture.lag), label: span });
      this.charts = [this.rates, this.lags];
    }
    const data = binned([samples[""]], at, this.span());
    this.rates.setData(data.rates);
    this.lags.setData(data.lags);
    if (column === null) return;
    const found = points[column] || [], scale = this.scaleOf(column, found);
    if (this.drawn !== `${column}\n${scale}`) {
      if (this.values) this.values.destroy();
      this.drawn = `${column}\n${scale}`;
      for (const input of this.root.querySelectorAll("input[name=scale]")) input.checked = input.value === scale;
      const last = (index) => () => this.values.data[index].findLast((value) => value !== null);
      this.values = makeChart(this.$("points"), {
        height: 258, frame: shown, key, label: amount, size: 64, values: (splits) => splits.map((value) => (value === null ? "" : amount(value))), ...scaled(scale),
        lines: [
          { name: "value", colour: 2, dots: true, now: last(1) },
          { name: "median", colour: 1, joined: true, now: last(2) },
        ],
      });
    }
    this.values.setData(columnData(found, scale));
  }

  // Amounts of many tokens are orders of magnitude apart: unless another scale was chosen, those are drawn by their
  // logarithm. It is settled once there are some.
  scaleOf(column, points) {
    if (this.scales[column]) return this.scales[column];
    const values = points.map(([, , value]) => value).sort((one, other) => one - other);
    const at = (share) => values[Math.floor(share * (values.length - 1))];
    const scale = values.length && at(0.02) > 0 && at(0.95) > 300 * at(0.05) ? "log" : "linear";
    if (values.length >= 20) this.scales[column] = scale;
    return scale;
  }

  // Charts have their colours in their canvas: another theme takes new ones.
  dress() {
    if (this.host.dataset.theme === scheme()) return;
    this.host.dataset.theme = scheme();
    for (const chart of [...this.charts, this.values]) if (chart) chart.destroy();
    this.charts = [];
    this.values = this.drawn = null;
    this.draw();
  }

  resize() {
    for (const chart of [...this.charts, this.values]) {
      const box = chart && chart.root.parentElement;
      if (box && box.clientWidth && box.clientWidth !== chart.width) chart.setSize({ width: box.clientWidth, height: chart.height });
    }
    this.draw();
  }

  // ------------------------------------------------------------------ what is chosen, and silence

  chosen(element) {
    if (element.name === "window") this.length = Number(element.value);
    if (element.name === "scale" && this.picture) this.scales[this.picture.column] = element.value;
    if (element.name === "table") this.table = element.value;
    if (element.id === "column") this.model.send({ kind: "column", name: element.value });
    if (!this.picture) return;
    if (element.name === "table") this.showRows();
    this.draw();
  }

  silence() {
    const silent = Date.now() - this.heard;
    const over = this.picture && ["ended", "failed"].includes(this.picture.state);
    this.$("gone").hidden = over || silent < SILENT;
    this.host.classList.toggle("stale", !this.$("gone").hidden);
    if (!this.$("gone").hidden) this.$("gone").textContent = `The kernel is busy or gone: nothing was heard of it for ${span(silent / 1000)}. What is shown is what was known last.`;
  }
}

function render({ model, el }) {
  const host = make("div", { class: "bqstream-view" });
  el.append(host);
  const view = new View(model, host);
  const name = String(Math.random()).slice(2);
  const cleanup = new AbortController();
  // The still picture for the notebook's file is not shown beside what lives.
  const hiding = make("style", {}, `[data-bqstream-still="${model.get("_key")}"] { display: none; }`);
  document.head.append(hiding);
  const take = (message) => view.take(message);
  model.on("msg:custom", take);
  model.send({ kind: "look", view: name });
  const watch = new ResizeObserver(() => view.resize());
  watch.observe(host);
  const theme = new MutationObserver(() => view.dress());
  for (const element of [document.body, document.documentElement]) theme.observe(element, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.dress(), { signal: cleanup.signal });
  addEventListener("visibilitychange", () => { if (!document.hidden) view.draw(); }, { signal: cleanup.signal });
  const left = () => model.send({ kind: "left", view: name });
  addEventListener("pagehide", left, { signal: cleanup.signal });
  const beat = setInterval(() => view.silence(), 1000);
  return () => {
    cleanup.abort();
    clearInterval(beat);
    watch.disconnect();
    theme.disconnect();
    model.off("msg:custom", take);
    hiding.remove();
    if (model.comm_live !== false) left();
  };
}

export default { render };
