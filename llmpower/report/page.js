"use strict";
// Moves the slider's plan, copies tables, saves pictures, shows what a mark says. Everything else is there without it.
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const live = $("#live");

  function say(text) {
    if (live) live.textContent = text;
  }

  // As Python's "g" has it: a power of ten from four zeros behind the point on.
  function general(value, digits) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    if (!value || power >= -4) return String(Number(value.toPrecision(digits)));
    return `${Number(mantissa)}e-${String(-power).padStart(2, "0")}`;
  }

  // As llmpower.phrases.number and quantity have it.
  function number(value) {
    return Math.abs(value) >= 999.95 ? Math.round(value).toLocaleString("en-US") : general(value, 4);
  }

  function quantity(value, unit) {
    if (!value) return `0 ${unit}`;
    const power = Math.min(Math.max(Math.floor(Math.log10(Math.abs(value) * 1.0005) / 3), -3), 4);
    const prefix = ["n", "µ", "m", "", "k", "M", "G", "T"][power + 3];
    const scaled = value / 1000 ** power;
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(scaled) * 1.0005)));
    return `${scaled.toFixed(decimals)} ${prefix}${unit}`;
  }

  function mass(grams) {
    return grams >= 999500 ? quantity(grams / 1e6, "t") : quantity(grams, "g");
  }

  function percent(fraction) {
    const value = 100 * fraction;
    return Math.abs(value) >= 0.95 || !value ? `${value.toFixed(1)} %` : `${general(value, 2)} %`;
  }

  const source = $("#plan-data");
  if (source) {
    const plans = JSON.parse(source.textContent);
    const slider = $("#zeta");
    // A tariff's kinds have no factor to type.
    const inputs = ["price", "carbon", "pue"].map((id) => $(`#${id}`));
    // Marks are found once: those of all plans, and the one that is shown.
    const movers = $$("svg")
      .map((svg) => [$$(".plans_marks > *", svg), $(".chosen_marks > *", svg)])
      .filter(([marks, chosen]) => marks.length && chosen);
    const cells = $$("#map svg .map_marks > *");
    const mapRows = $$("#map-table tbody tr");
    // Paths of bars: left, top, width and height.
    const box = (mark) => mark.getAttribute("d").match(/^M(.+),(.+)h(.+)v(.+)h/).slice(1).map(Number);
    const placed = (marks) => marks.map((mark) => [mark, ...box(mark)]);
    const bars = placed($$("#hours svg .hours_marks > *"));
    const ticks = placed($$("#hours svg .flat_marks > *"));
    // Where nothing is drawn: the first bar stands on it, and the axis ends at the largest there is.
    const ground = bars.length ? bars[0][2] + bars[0][4] : 0;
    const hourRows = $$("#hours-table tbody tr");

    function money(energyJ) {
      const [price, carbon, pue] = inputs.map((input) => (input?.validity.valid ? input.valueAsNumber : NaN));
      const kwh = (energyJ / plans.joules_per_kwh) * pue;
      const known = (value, text) => (Number.isFinite(value) ? text(value) : "–");
      return [
        known(kwh * price, (value) => `${number(value)} €`),
        known(kwh * carbon, mass),
      ];
    }

    // What a tariff bills is among the texts; the rest follows from the factors.
    function costs(step) {
      const columns = [["readout", step.energy_j], ["flat", step.flat?.energy_j], ["other", plans.most_j]];
      for (const [attribute, energyJ] of columns.filter(([, energyJ]) => energyJ !== undefined)) {
        const texts = { total: money(energyJ), million: plans.queries ? money((energyJ / plans.queries) * 1e6) : [] };
        const lines = [["cost", texts.total[0]], ["carbon", texts.total[1]], ["cost_million", texts.million[0]], ["carbon_million", texts.million[1]]];
        for (const [key, text] of lines) {
          const cell = $(`[data-${attribute}="${key}"]`);
          if (cell && text !== undefined && !(key in step.texts)) cell.textContent = text;
        }
      }
    }

    function bill(step) {
      const [cost, carbon] = money(step.energy_j);
      return [step.texts.cost ?? cost, step.texts.carbon ?? carbon].join(", ");
    }

    function put(cell, value) {
      cell.textContent = number(value);
      cell.dataset.value = value;
    }

    // Bars stand on each other, hour by hour, in the order of their marks.
    function showHours(step) {
      const models = plans.models.length;
      const level = (energyJ) => ground * (1 - energyJ / plans.hour_most_j);
      const draw = (mark, x, top, width, height) => mark.setAttribute("d", `M${x},${top}h${width}v${height}h${-width}Z`);
      bars.forEach(([bar, x, , width], n) => {
        const below = step.hours.slice(n - (n % models), n).reduce((sum, energyJ) => sum + energyJ, 0);
        const top = level(below + step.hours[n]);
        draw(bar, x, top, width, level(below) - top);
      });
      ticks.forEach(([tick, x, , width, height], hour) => draw(tick, x, level(step.flat_hours[hour]) - height / 2, width, height));
      hourRows.forEach((row, hour) => {
        const last = row.children.length - (step.flat_hours ? 1 : 0);
        step.hours.slice(hour * models, (hour + 1) * models).forEach((energyJ, model) => put(row.children[last - models + model], energyJ));
        if (step.flat_hours) put(row.children[last], step.flat_hours[hour]);
      });
    }

    function show() {
      const place = slider.valueAsNumber;
      const step = plans.steps[place];
      $("#zeta-value").textContent = step.zeta;
      $("#zeta-place").textContent = place + 1;
      $("#saved").textContent = step.saved;
      slider.setAttribute("aria-valuetext", step.say);
      for (const [key, text] of Object.entries(step.texts)) $(`[data-readout="${key}"]`).textContent = text;
      for (const [key, text] of Object.entries(step.flat?.texts ?? {})) $(`[data-flat="${key}"]`).textContent = text;
      step.shares.forEach((share, model) => {
        $(`[data-share="${model}"]`).textContent = percent(share);
        $(`[data-bar="${model}"]`).style.width = `${100 * share}%`;
      });
      for (const [marks, chosen] of movers) chosen.setAttribute("transform", marks[place].getAttribute("transform"));
      cells.forEach((cell, bin) => {
        const model = step.map[bin];
        cell.setAttribute("fill", `var(--c${model % plans.colours})`);
        cell.setAttribute("opacity", 0.1 + 0.9 * step.parts[bin]);
        const [, , , name, part] = mapRows[bin].children;
        name.textContent = plans.models[model];
        put(part, 100 * step.parts[bin]);
      });
      if (step.hours) showHours(step);
      costs(step);
    }

    slider.addEventListener("input", show);
    // A reader hears each step by the slider's own text; what follows from it, once it rests.
    slider.addEventListener("change", () => {
      const step = plans.steps[slider.valueAsNumber];
      say(`${step.say}; ${step.saved}; ${bill(step)}`);
    });
    for (const input of inputs.filter((input) => input)) {
      input.addEventListener("input", () => costs(plans.steps[slider.valueAsNumber]));
      input.addEventListener("change", () => say(bill(plans.steps[slider.valueAsNumber])));
    }
    $("#knobs").addEventListener("submit", (event) => event.preventDefault());
    // A browser that comes back to the page keeps its slider.
    show();
  }

  function quoted(text) {
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv(table) {
    const rows = $$("tr", table).map((row) => [...row.children].map((cell) => cell.dataset.value ?? (cell.textContent === "–" ? "" : cell.textContent)));
    return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Where no clipboard is available, what is selected can still be copied.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) throw new Error("not copied");
    }
  }

  function told(button, text) {
    const before = button.dataset.label ?? button.textContent;
    button.dataset.label = before;
    button.textContent = text;
    say(text);
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  for (const button of $$("[data-copy]")) {
    button.addEventListener("click", () => {
      copy(csv(document.getElementById(button.dataset.copy))).then(() => told(button, "Copied"), () => told(button, "Not copied"));
    });
  }

  // A picture by itself has no style sheet: its properties become the colours that they are now.
  function standalone(svg) {
    const style = getComputedStyle(document.documentElement);
    const copyOf = svg.cloneNode(true);
    const back = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", "var(--paper)"]]) back.setAttribute(name, value);
    copyOf.prepend(back);
    return new XMLSerializer().serializeToString(copyOf).replace(/var\((--[a-z0-9]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  }

  for (const button of $$("[data-svg]")) {
    button.addEventListener("click", () => {
      $$(`#${button.dataset.svg} svg`).forEach((svg, place, all) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([standalone(svg)], { type: "image/svg+xml" }));
        link.download = `${button.dataset.svg}${all.length > 1 ? `-${place + 1}` : ""}.svg`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      });
      told(button, "Saved");
    });
  }

  const tip = $("#tip");
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
  });

  // Whoever prints wants the details too; the numbers under figures stay folded.
  const folded = () => $$("details:not(.numbers):not([open])");
  let opened = [];
  addEventListener("beforeprint", () => { opened = folded(); for (const details of opened) details.open = true; });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
})();
