// Hooks for a page: they count the WebGPU calls of each phase, time every dispatch, or leave out the GPU.

/**
 * Wraps WebGPU and adds `window.gpuHooks`. Runs in the page before any other script, so it refers to nothing outside.
 *
 * Modes, set with `gpuHooks.mode`:
 * - `real`: calls go through and are counted.
 * - `timed`: in addition, every dispatch gets a compute pass of its own with a timestamp before and after it.
 * - `stubbed`: nothing reaches the GPU. Calls give stand-ins at once and readbacks give zeros, so that what takes time
 *   is encoding on the CPU. The engine is of no use afterwards.
 */
export function installHooks() {
  if (globalThis.GPUDevice === undefined) return;
  /** Bytes of the longest write that is kept. */
  const MAX_WORDS = 1024;
  /** One for each compute pipeline: `{label, entryPoint, code}`. */
  const kernels = [];
  /** Calls and wall time of each phase, by `run/phase`. */
  const phases = {};
  /** Dispatches of one kernel, phase, workgroups and binding sizes, by these. */
  const dispatches = new Map();
  const codes = new WeakMap();
  const kernelOf = new WeakMap();
  const bindingsOf = new WeakMap();
  /** What was written to a place of a buffer last, where it is short: the shapes that a kernel reads. */
  const wordsOf = new WeakMap();
  const deviceOf = new WeakMap();
  /** Pipeline and bind groups that a compute pass has. */
  const bound = new WeakMap();
  let current = (phases['start/start'] = { counts: {}, ms: 0 });
  let currentName = 'start/start';
  let since = performance.now();

  const hooks = {
    mode: 'real',
    /** Whether single dispatches are kept; counts always are. */
    recording: true,
    enter(name) {
      const now = performance.now();
      current.ms += now - since;
      since = now;
      current = phases[name] ??= { counts: {}, ms: 0 };
      currentName = name;
    },
    report: () => ({ phases, kernels, dispatches: [...dispatches.values()] }),
    readTimes,
  };
  globalThis.gpuHooks = hooks;

  const add = (name, value = 1) => {
    current.counts[name] = (current.counts[name] ?? 0) + value;
  };
  const originals = {};
  const wrap = (type, method, replace) => {
    const { prototype } = globalThis[type];
    const original = prototype[method];
    if (original === undefined) return;
    originals[`${type}.${method}`] = original;
    prototype[method] = replace(original);
  };
  /** Counts a call, and calls the substitute instead in mode `stubbed`. */
  const count = (type, method, name, substitute, seen) =>
    wrap(
      type,
      method,
      (original) =>
        function (...args) {
          if (name !== undefined) add(name);
          const result = hooks.mode === 'stubbed' ? substitute.apply(this, args) : original.apply(this, args);
          seen?.call(this, result, ...args);
          return result;
        },
    );
  const nothing = () => undefined;

  // Devices and what they make.
  /** The engine reads labels. */
  const standIn = (more) => ({ label: '', ...more });
  const standInBuffer = ({ size, usage }) => standIn({
    size,
    usage,
    mapState: 'unmapped',
    mapAsync: async () => add('maps'),
    getMappedRange: (offset = 0, length = size - offset) => new ArrayBuffer(length),
    unmap: nothing,
    destroy: nothing,
  });
  count('GPUDevice', 'createBuffer', 'buffers', standInBuffer, (_, { size }) => add('bufferBytes', size));
  count('GPUDevice', 'createShaderModule', 'modules', () => standIn(), (module, { code }) => codes.set(module, code));
  const keepKernel = (pipeline, { label, compute }) => {
    kernelOf.set(pipeline, kernels.length);
    kernels.push({ label, entryPoint: compute.entryPoint, code: codes.get(compute.module) ?? '' });
  };
  const standInPipeline = () => standIn({ getBindGroupLayout: () => standIn() });
  count('GPUDevice', 'createComputePipeline', 'pipelines', standInPipeline, keepKernel);
  count(
    'GPUDevice',
    'createComputePipelineAsync',
    'pipelines',
    async () => standInPipeline(),
    (promise, descriptor) => void promise.then((pipeline) => keepKernel(pipeline, descriptor), nothing),
  );
  count('GPUDevice', 'createBindGroup', 'bindGroups', () => standIn(), (group, { entries }) => {
    if (!hooks.recording) return;
    const sorted = [...entries].sort((a, b) => a.binding - b.binding).map(({ resource }) => resource);
    const sizes = sorted.map(({ buffer, offset = 0, size = buffer?.size - offset }) => size);
    const { buffer, offset = 0 } = sorted.at(-1);
    bindingsOf.set(group, { sizes, words: wordsOf.get(buffer)?.get(offset) ?? [] });
  });
  count('GPUDevice', 'createBindGroupLayout', undefined, () => standIn());
  count('GPUDevice', 'createPipelineLayout', undefined, () => standIn());
  count('GPUDevice', 'pushErrorScope', undefined, nothing);
  count('GPUDevice', 'popErrorScope', undefined, async () => null);
  count('GPUComputePipeline', 'getBindGroupLayout', undefined, () => standIn());
  count('GPUBuffer', 'mapAsync', 'maps', async () => undefined);
  count('GPUBuffer', 'getMappedRange', undefined, function (offset = 0, length = this.size - offset) {
    return new ArrayBuffer(length);
  });
  count('GPUBuffer', 'unmap', undefined, nothing);

  // The queue.
  count('GPUQueue', 'submit', 'submits', nothing);
  count('GPUQueue', 'onSubmittedWorkDone', 'fences', async () => undefined);
  count('GPUQueue', 'writeBuffer', 'writes', nothing, (_result, buffer, offset, data, from = 0, length) => {
    const each = data.BYTES_PER_ELEMENT ?? 1;
    const bytes = length === undefined ? data.byteLength - each * from : each * length;
    add('writeBytes', bytes);
    if (!hooks.recording || bytes > MAX_WORDS) return;
    const copy = new Uint8Array(data.buffer ?? data, (data.byteOffset ?? 0) + each * from, bytes).slice();
    const places = wordsOf.get(buffer) ?? wordsOf.set(buffer, new Map()).get(buffer);
    places.set(offset, [...new Uint32Array(copy.buffer, 0, bytes >> 2)]);
  });

  // Encoders and passes.
  const standInPass = () => standIn({
    setPipeline(pipeline) {
      this.pipeline = pipeline;
    },
    setBindGroup(index, group) {
      this.group = group;
    },
    dispatchWorkgroups(x, y = 1, z = 1) {
      add('dispatches');
      if (hooks.recording) record(this.pipeline, this.group, [x, y, z]);
    },
    dispatchWorkgroupsIndirect: () => add('dispatches'),
    end: nothing,
  });
  const standInEncoder = () => standIn({
    beginComputePass() {
      add('passes');
      return standInPass();
    },
    copyBufferToBuffer: () => add('copies'),
    clearBuffer: nothing,
    resolveQuerySet: nothing,
    finish: () => standIn(),
  });
  count('GPUDevice', 'createCommandEncoder', 'encoders', standInEncoder, function (encoder) {
    deviceOf.set(encoder, this);
  });
  wrap(
    'GPUCommandEncoder',
    'beginComputePass',
    (original) =>
      function (descriptor) {
        add('passes');
        if (hooks.mode === 'stubbed') return standInPass();
        return hooks.mode === 'timed' ? timedPass(this) : original.call(this, descriptor);
      },
  );
  count('GPUCommandEncoder', 'copyBufferToBuffer', 'copies', nothing);
  count('GPUCommandEncoder', 'finish', undefined, () => standIn());
  const state = (pass) => bound.get(pass) ?? bound.set(pass, {}).get(pass);
  count('GPUComputePassEncoder', 'setPipeline', undefined, nothing, function (_, pipeline) {
    state(this).pipeline = pipeline;
  });
  count('GPUComputePassEncoder', 'setBindGroup', undefined, nothing, function (_, index, group) {
    if (index === 0) state(this).group = group;
  });
  count('GPUComputePassEncoder', 'dispatchWorkgroups', 'dispatches', nothing, function (_, x, y = 1, z = 1) {
    if (hooks.recording) record(state(this).pipeline, state(this).group, [x, y, z]);
  });
  count('GPUComputePassEncoder', 'dispatchWorkgroupsIndirect', 'dispatches', nothing);
  count('GPUComputePassEncoder', 'end', undefined, nothing);

  function record(pipeline, group, workgroups) {
    const kernel = kernelOf.get(pipeline);
    const { sizes, words } = bindingsOf.get(group) ?? { sizes: [], words: [] };
    const key = `${currentName} ${kernel} ${workgroups} ${sizes} ${words}`;
    const entry = dispatches.get(key) ?? { phase: currentName, kernel, workgroups, sizes, words, n: 0, timed: 0, ns: 0, best: Infinity };
    dispatches.set(key, entry);
    entry.n += 1;
    return entry;
  }

  /** Query sets of a device; each has pairs of timestamps, and the dispatch that a pair belongs to. */
  const querySets = [];
  const PAIRS = 2048;

  function nextPair(device) {
    let last = querySets.findLast((set) => set.device === device);
    if (last === undefined || last.entries.length === PAIRS) {
      last = { device, querySet: device.createQuerySet({ type: 'timestamp', count: 2 * PAIRS }), entries: [] };
      querySets.push(last);
    }
    return last;
  }

  /** A pass that opens a real one for each dispatch. */
  function timedPass(encoder) {
    const device = deviceOf.get(encoder);
    const groups = [];
    let pipeline;
    return {
      setPipeline(value) {
        pipeline = value;
      },
      setBindGroup(index, group) {
        groups[index] = group;
      },
      dispatchWorkgroups(x, y = 1, z = 1) {
        add('dispatches');
        const set = nextPair(device);
        const index = 2 * set.entries.length;
        set.entries.push(record(pipeline, groups[0], [x, y, z]));
        const timestampWrites = {
          querySet: set.querySet,
          beginningOfPassWriteIndex: index,
          endOfPassWriteIndex: index + 1,
        };
        const pass = originals['GPUCommandEncoder.beginComputePass'].call(encoder, { timestampWrites });
        const call = (method, ...args) => originals[`GPUComputePassEncoder.${method}`].apply(pass, args);
        call('setPipeline', pipeline);
        groups.forEach((group, i) => call('setBindGroup', i, group));
        call('dispatchWorkgroups', x, y, z);
        call('end');
      },
      end: nothing,
    };
  }

  /** Adds the timestamps of all timed dispatches to their entries. Call it in mode `real` once the work has ended. */
  async function readTimes() {
    for (const { device, querySet, entries } of querySets.splice(0)) {
      const size = 16 * entries.length;
      const usage = { resolved: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC };
      const resolved = device.createBuffer({ size, usage: usage.resolved });
      const copied = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
      const encoder = device.createCommandEncoder();
      encoder.resolveQuerySet(querySet, 0, 2 * entries.length, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, copied, 0, size);
      device.queue.submit([encoder.finish()]);
      await copied.mapAsync(GPUMapMode.READ);
      const times = new BigUint64Array(copied.getMappedRange());
      entries.forEach((entry, i) => {
        const ns = Number(times[2 * i + 1] - times[2 * i]);
        // Zero where a driver did not write them.
        if (times[2 * i] === 0n || ns < 0) return;
        entry.timed += 1;
        entry.ns += ns;
        entry.best = Math.min(entry.best, ns);
      });
      for (const made of [resolved, copied, querySet]) made.destroy();
    }
  }
}
