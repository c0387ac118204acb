// Figures of each phase, product and kind of kernel, from what the hooks counted and timed.

const PHASES = {
  load: ['load', 'self-test'],
  first: ['picture', 'prefix', 'questions'],
  second: ['prefix', 'questions'],
};
const COUNTS = [
  ...['dispatches', 'pipelines', 'modules', 'maps', 'fences', 'submits', 'passes', 'bindGroups', 'writes', 'writeBytes'],
  ...['buffers', 'bufferBytes'],
];

/** What kernels in plain WGSL are called, by a buffer that no other kind has. */
const KINDS = {
  product: 'words',
  attention: 'qkv|seen',
  norm: 'gamma',
  'store keys and values': 'cache',
  rotate: 'table',
  'add rows': 'features',
};

/** The buffers that a text binds, in the order of their bindings. */
const buffers = ({ code }) => [...code.matchAll(/var<storage[^>]*>\s*(\w+)/g)].map(([, name]) => name);

/** Kernels in plain WGSL have the entry point `main`; burn's have a label such as `kernel_binop_c_f32_n_4_0e976cef`. */
function kindOf(kernel) {
  const { entryPoint, code } = kernel;
  if (entryPoint !== 'main') return /^[a-z_]+?(?=_[a-z]_|_[a-z]+_f32|_\d|$)/.exec(entryPoint)?.[0] ?? entryPoint;
  const bound = buffers(kernel);
  const found = Object.entries(KINDS).find(([, names]) => bound.some((name) => names.split('|').includes(name)));
  return found?.[0] ?? `main(${bound.join(', ')}), ${code.length} characters`;
}

/** A constant of a text. */
const constant = ({ code }, name) => Number(new RegExp(`const ${name} = (\\d+)u;`).exec(code)?.[1]);

/** Size and operations of a product `y = x wᵗ`: buffers x, words and y, and `m`, `n`, `k` among the sizes. */
function product(kernel, { sizes, words: [m, n, k] }) {
  const bound = buffers(kernel);
  const bytes = (name) => sizes[bound.indexOf(name)];
  if (bytes('x') !== 4 * m * k || bytes('y') !== 4 * m * n) return undefined;
  const added = bound.filter((name) => !['x', 'words', 'y', 'info'].includes(name));
  const shape = { m, k, n, bits: (8 * bytes('words')) / (n * k), with: added.join(', ') };
  return { shape, flop: 2 * m * k * n };
}

/** Size and operations of attention, all pairs of queries and keys counted, also those that a mask hides. */
function attention(kernel, { sizes, words: [queries, keys] }) {
  const width = 4 * constant(kernel, 'WIDTH');
  const heads = sizes[buffers(kernel).indexOf('out')] / 4 / queries / width;
  if (!Number.isInteger(heads)) return undefined;
  return { shape: { queries, keys, heads, width }, flop: 4 * queries * keys * heads * width };
}

const MEASURED = { product, attention };

const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Rows that share a key, with the sums of their dispatches and times. */
function grouped(entries, key) {
  const groups = new Map();
  for (const entry of entries) {
    const name = key(entry);
    const group = groups.get(name) ?? { ...entry, n: 0, timed: 0, ns: 0, best: Infinity };
    groups.set(name, group);
    group.best = Math.min(group.best, entry.best);
    for (const field of ['n', 'timed', 'ns']) group[field] += entry[field];
  }
  return [...groups.values()];
}

/** Every dispatch of a report, with the kernel's kind and, where it is known, its size and operations. */
function named({ dispatches, kernels }) {
  return dispatches.map((entry) => {
    const kernel = kernels[entry.kernel];
    const kind = kindOf(kernel);
    return { ...entry, kind, ...MEASURED[kind]?.(kernel, entry) };
  });
}

export function summarise({ reports, results, loaded, failures, stubbedRuns, problems = [] }) {
  const { real, timed, stubbed } = reports;
  const counted = real ?? stubbed;
  if (counted === undefined) return { failures, problems };
  const countedAs = real ? '' : 'filling ';
  // Dispatches with times where there are any.
  const [detailed, detailedAs] = timed ? [timed, 'timed '] : [counted, countedAs];
  const dispatches = named(detailed);

  const rows = Object.entries(PHASES).flatMap(([run, names]) =>
    names.flatMap((name) => {
      const isLoad = run === 'load';
      const phase = counted.phases[`${isLoad ? '' : countedAs}${run}/${name}`];
      if (phase === undefined) return [];
      const { counts, ms } = phase;
      const stubs = stubbedRuns.map((stub) => stubbed.phases[`${stub}${run}/${name}`]?.ms).filter(Number.isFinite);
      const own = dispatches.filter(({ phase }) => phase === `${detailedAs}${run}/${name}`);
      const n = counts.dispatches ?? 0;
      const stubbedMs = isLoad || stubs.length === 0 ? undefined : Math.min(...stubs);
      return {
        run,
        phase: name,
        ...Object.fromEntries(COUNTS.map((count) => [count, counts[count] ?? 0])),
        gflop: sum(own.map(({ n, flop = 0 }) => n * flop)) / 1e9,
        wallMs: isLoad || real ? ms : undefined,
        gpuMs: own.some((entry) => entry.timed) ? sum(own.map(({ ns }) => ns)) / 1e6 : undefined,
        stubbedMs,
        stubbedUsPerDispatch: stubbedMs === undefined || n === 0 ? undefined : (1000 * stubbedMs) / n,
      };
    }),
  );

  const isScore = ({ phase }) => ['first', 'second'].some((run) => phase.startsWith(`${detailedAs}${run}/`));
  const scored = dispatches.filter(isScore);
  const ofKind = (wanted) =>
    grouped(
      scored.filter(({ kind, shape }) => kind === wanted && shape !== undefined),
      ({ shape, phase }) => `${Object.values(shape)} ${phase.split('/')[1]}`,
    ).map(({ phase, shape, flop, n, timed: times, ns, best }) => ({
      phase: phase.split('/')[1],
      ...shape,
      dispatches: n,
      meanUs: times ? ns / times / 1e3 : undefined,
      bestUs: times ? best / 1e3 : undefined,
      gflops: times ? flop / best : undefined,
    }));
  const kinds = grouped(scored, ({ kind }) => kind).map(({ kind, n, timed: times, ns }) => ({
    kernel: kind,
    dispatches: n,
    gpuMs: times ? ns / 1e6 : undefined,
  }));
  kinds.sort((a, b) => (b.gpuMs ?? 0) - (a.gpuMs ?? 0) || b.dispatches - a.dispatches);
  const unknown = scored.filter(({ kind, shape }) => MEASURED[kind] !== undefined && shape === undefined);
  return {
    adapter: loaded.adapter,
    info: loaded.info,
    onGpu: real !== undefined,
    rows,
    products: ofKind('product'),
    attentions: ofKind('attention'),
    kinds,
    ofUnknownSize: sum(unknown.map(({ n }) => n)),
    pipelines: detailed.kernels.length,
    wgslBytes: sum(detailed.kernels.map(({ code }) => code.length)),
    results,
    failures,
    problems,
  };
}
