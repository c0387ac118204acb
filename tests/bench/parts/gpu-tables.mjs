// Prints a summary as aligned text.

const fixed = (digits) => (value) => (Number.isFinite(value) ? value.toFixed(digits) : '-');
const kilobytes = (value) => (value / 1e3).toFixed(1);

function table(columns, rows) {
  const heads = Object.keys(columns);
  const lines = [heads, ...rows.map((row) => heads.map((head) => String(columns[head](row))))];
  const widths = heads.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const isText = heads.map((_, i) => lines.slice(1).every((line) => !/^-?[\d.]*$/.test(line[i])));
  const cell = (text, i) => (isText[i] ? text.padEnd(widths[i]) : text.padStart(widths[i]));
  for (const line of lines) console.log(`  ${line.map(cell).join('  ')}`.trimEnd());
  console.log();
}

const CALLS = {
  phase: ({ run, phase }) => `${run}: ${phase}`,
  dispatches: ({ dispatches }) => dispatches,
  pipelines: ({ pipelines }) => pipelines,
  modules: ({ modules }) => modules,
  maps: ({ maps }) => maps,
  fences: ({ fences }) => fences,
  submits: ({ submits }) => submits,
  passes: ({ passes }) => passes,
  'bind groups': ({ bindGroups }) => bindGroups,
  writes: ({ writes }) => writes,
  'written kB': ({ writeBytes }) => kilobytes(writeBytes),
  buffers: ({ buffers }) => buffers,
  'created kB': ({ bufferBytes }) => kilobytes(bufferBytes),
};
const TIMES = {
  phase: CALLS.phase,
  'wall ms': ({ wallMs }) => fixed(0)(wallMs),
  'GPU ms': ({ gpuMs }) => fixed(1)(gpuMs),
  GFLOP: ({ gflop }) => fixed(3)(gflop),
  'stubbed ms': ({ stubbedMs }) => fixed(1)(stubbedMs),
  'us/dispatch': ({ stubbedUsPerDispatch }) => fixed(1)(stubbedUsPerDispatch),
};
const SPEED = {
  dispatches: ({ dispatches }) => dispatches,
  'mean us': ({ meanUs }) => fixed(0)(meanUs),
  'best us': ({ bestUs }) => fixed(0)(bestUs),
  'GFLOP/s': ({ gflops }) => fixed(2)(gflops),
};
const PRODUCTS = {
  phase: ({ phase }) => phase,
  'M x K x N': ({ m, k, n }) => `${m} x ${k} x ${n}`,
  'bits a weight': ({ bits }) => bits,
  with: ({ with: added }) => added,
  ...SPEED,
};
const ATTENTIONS = {
  phase: ({ phase }) => phase,
  'queries x keys': ({ queries, keys }) => `${queries} x ${keys}`,
  'heads x width': ({ heads, width }) => `${heads} x ${width}`,
  ...SPEED,
};

export function print(summary) {
  const { model, adapter, onGpu, rows, products, attentions, kinds, pipelines, wgslBytes, ofUnknownSize, failures } = summary;
  console.log(`== ${model}${adapter === undefined ? '' : ` on ${adapter}`}`);
  for (const failure of failures) console.log(`failed: ${failure}`);
  if (rows === undefined) return;
  const how = onGpu ? 'counted as it ran' : 'counted with the GPU stubbed out, as nothing was scored on it';
  console.log(`${pipelines} pipelines of ${kilobytes(wgslBytes)} kB of WGSL in all; calls ${how}\n`);
  table(CALLS, rows);
  table(TIMES, rows);
  console.log(`products of both scores${ofUnknownSize ? `; ${ofUnknownSize} kernels are not of a known size` : ''}`);
  table(PRODUCTS, products);
  console.log('attention of both scores; GFLOP/s count pairs that a mask hides');
  table(ATTENTIONS, attentions);
  const total = kinds.reduce((sum, { gpuMs = NaN }) => sum + gpuMs, 0);
  console.log('kernels of both scores');
  table(
    {
      kernel: ({ kernel }) => kernel,
      dispatches: ({ dispatches }) => dispatches,
      'GPU ms': ({ gpuMs }) => fixed(1)(gpuMs),
      '% of time': ({ gpuMs }) => fixed(1)((100 * gpuMs) / total),
    },
    kinds,
  );
}
