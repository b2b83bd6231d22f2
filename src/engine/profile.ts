/** What a dispatch or a copy does. */
export interface KernelInfo {
  /** The operator; fused ones joined by `+`. */
  readonly op: string
  /** Path of the layer that called it, such as `backbone.layer1.0.conv1`. */
  readonly layer: string
  /** The chosen candidate, and which of its dispatches where there are several. */
  readonly kernel: string
  /** What it reads → what it writes. */
  readonly shapes: string
  /** Bytes of all that, each buffer counted once in full. */
  readonly bytes: number
  /** Of a product; 0 of all else. */
  readonly multiplyAdds: number
}

/** One execution of a kernel, from the end of what ran before it to its own end: nanoseconds of the device's clock. */
export interface KernelTime extends KernelInfo {
  readonly start: number
  readonly end: number
}

/** One run of a program. */
export interface RunTimes {
  readonly program: string
  /** Milliseconds of `performance.now()`: the run was called, encoded, and submitted. */
  readonly began: number
  readonly encoded: number
  readonly submitted: number
  /** When the device began and ended with it, in nanoseconds of its own clock. */
  readonly start: number
  readonly end: number
  /** One after the other; none where the run was timed as a whole. */
  readonly kernels: readonly KernelTime[]
}

/** One step of a training, say: JavaScript got ready, then ran some programs and waited for their results. */
export interface StepTimes {
  /** Milliseconds of `performance.now()`: the step before was done, the data was there, the results were there. */
  readonly began: number
  readonly ready: number
  readonly done: number
  readonly runs: readonly RunTimes[]
}

/** Steps as they ordinarily run, and steps timed kernel by kernel, which take longer. */
export interface Profile {
  readonly ordinary: readonly StepTimes[]
  readonly detailed: readonly StepTimes[]
  /** Nanoseconds that a time stamp adds to each kernel of the detailed steps. */
  readonly stampCost: number
}

/** How ordinary steps spend their time: medians over the steps, in milliseconds. */
export interface Occupancy {
  readonly wall: number
  /** Of the wall time: a program was running on the device, or the device waited for JavaScript. */
  readonly busy: number
  readonly waiting: number
  /** Of the wall time: JavaScript waited for its data, encoded commands, submitted them. */
  readonly data: number
  readonly encode: number
  readonly submit: number
}

/** A share of the device's time. */
export interface TimeShare {
  readonly name: string
  /** Per step. */
  readonly calls: number
  readonly milliseconds: number
  /** Of all kernels, 0..1. */
  readonly share: number
}

/** Kernels that are alike but for their layer. */
export interface KernelShare extends TimeShare {
  readonly op: string
  readonly kernel: string
  readonly shapes: string
  readonly layers: readonly string[]
  /** 10^9 bytes per second of what they read and write. */
  readonly gbps: number
}

/** Every list by time, the longest first. */
export interface KernelSummary {
  /** Milliseconds of all kernels, per step. */
  readonly milliseconds: number
  readonly operators: readonly TimeShare[]
  /** Every layer and every part of the model that contains it, by path. */
  readonly layers: readonly TimeShare[]
  readonly kernels: readonly KernelShare[]
}

const sumOf = <T>(items: readonly T[], value: (item: T) => number): number =>
  items.reduce((total, item) => total + value(item), 0)

export function occupancy(steps: readonly StepTimes[]): Occupancy {
  const median = (value: (step: StepTimes) => number): number =>
    steps.map(value).sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? 0
  const wall = ({ began, done }: StepTimes): number => done - began
  const busy = ({ runs }: StepTimes): number => sumOf(runs, ({ start, end }) => end - start) / 1e6
  return {
    wall: median(wall),
    busy: median(busy),
    waiting: median((step) => wall(step) - busy(step)),
    data: median(({ began, ready }) => ready - began),
    encode: median(({ runs }) => sumOf(runs, ({ began, encoded }) => encoded - began)),
    submit: median(({ runs }) => sumOf(runs, ({ encoded, submitted }) => submitted - encoded)),
  }
}

/** A layer's path and those of everything that contains it: `a.b.c` → `a`, `a.b`, `a.b.c`. */
const pathsOf = (layer: string): string[] => {
  const names = (layer === '' ? '(no layer)' : layer).split('.')
  return names.map((_, i) => names.slice(0, i + 1).join('.'))
}

/**
 * Sums kernels by operator, by layer, and by likeness.
 * @param steps over which they are averaged
 * @param stampCost nanoseconds that each kernel took longer for being timed
 */
export function summarizeKernels(kernels: readonly KernelTime[], steps: number, stampCost: number): KernelSummary {
  const timeOf = (list: readonly KernelTime[]) => sumOf(list, ({ start, end }) => Math.max(0, end - start - stampCost))
  const total = timeOf(kernels)
  const group = (keysOf: (kernel: KernelTime) => readonly string[]): (TimeShare & { members: KernelTime[] })[] => {
    const groups = new Map<string, KernelTime[]>()
    for (const kernel of kernels) {
      for (const key of keysOf(kernel)) {
        const members = groups.get(key)
        if (members) members.push(kernel)
        else groups.set(key, [kernel])
      }
    }
    const parts = [...groups].map(([name, members]) => {
      const time = timeOf(members)
      const share = total > 0 ? time / total : 0
      return { name, calls: members.length / steps, milliseconds: time / 1e6 / steps, share, members }
    })
    return parts.sort((a, b) => b.milliseconds - a.milliseconds)
  }
  const plain = ({ members: _, ...part }: TimeShare & { members: KernelTime[] }): TimeShare => part
  return {
    milliseconds: total / 1e6 / steps,
    operators: group(({ op }) => [op]).map(plain),
    layers: group(({ layer }) => pathsOf(layer)).map(plain),
    kernels: group(({ op, kernel, shapes }) => [`${op}, ${kernel}: ${shapes}`]).flatMap((part) => {
      const [first] = part.members
      if (!first) return []
      const layers = [...new Set(part.members.map(({ layer }) => layer))]
      const time = timeOf(part.members)
      const gbps = time > 0 ? sumOf(part.members, ({ bytes }) => bytes) / time : 0
      return [{ ...plain(part), op: first.op, kernel: first.kernel, shapes: first.shapes, layers, gbps }]
    }),
  }
}

const number = (value: number): string => value.toFixed(value < 10 ? 2 : 1)
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
const short = (text: string, width: number): string =>
  text.length > width ? `${text.slice(0, width - 1)}…` : text.padEnd(width)

const cells = ({ milliseconds, share, calls }: TimeShare): string =>
  `${number(milliseconds).padStart(9)} ${percent(share).padStart(7)} ${calls.toFixed(calls % 1 ? 1 : 0).padStart(6)}`
const heading = '       ms   share  calls'

/** Parts of less than this share of the time are left out of the tables of operators and layers. */
const leastShare = { operator: 0.005, layer: 0.01 }

/** Layers as a tree: parts below the whole that contains them, each level by time. */
function tree(layers: readonly TimeShare[]): string[] {
  const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('.')))
  const inside = (parent: string): TimeShare[] => layers.filter(({ name }) => parentOf(name) === parent)
  const rows = (parent: string, depth: number): string[] =>
    inside(parent).flatMap((part) => {
      if (part.share < leastShare.layer) return []
      let { name } = part
      // A whole with a single part is one row.
      for (let only = inside(name); only.length === 1 && only[0]?.calls === part.calls; only = inside(name)) {
        name = only[0].name
      }
      const shown = parent === '' ? name : name.slice(parent.length + 1)
      return [`${cells(part)}  ${'  '.repeat(depth)}${shown}`, ...rows(name, depth + 1)]
    })
  return rows('', 0)
}

/**
 * A profile as lines of text: how the steps spend their time, and the kernels by operator, by layer and by time.
 * @param rows kernels to list
 */
export function profileTable(profile: Profile, rows = 25): string[] {
  const { wall, busy, waiting, data, encode, submit } = occupancy(profile.ordinary)
  const steps = profile.detailed.length
  const kernels = profile.detailed.flatMap(({ runs }) => runs.flatMap((run) => run.kernels))
  const summary = summarizeKernels(kernels, Math.max(1, steps), profile.stampCost)
  const all = (part: number): string => `${number(part)} ms (${percent(wall > 0 ? part / wall : 0)})`
  return [
    `an ordinary step (median of ${profile.ordinary.length}): ${number(wall)} ms`,
    `  device: runs programs ${all(busy)}, waits for JavaScript ${all(waiting)}`,
    `  JavaScript: waits for data ${all(data)}, encodes ${all(encode)}, submits ${all(submit)}`,
    `kernel by kernel (mean of ${steps} other steps): ${number(summary.milliseconds)} ms in ` +
      `${Math.round(kernels.length / Math.max(1, steps))} kernels and copies, less ` +
      `${number(profile.stampCost / 1000)} us each that timing it adds`,
    '',
    `${heading}  operator`,
    ...summary.operators
      .filter(({ share }) => share >= leastShare.operator)
      .map((part) => `${cells(part)}  ${part.name}`),
    '',
    `${heading}  layer`,
    ...tree(summary.layers),
    '',
    `${heading}    GB/s  ${'operator'.padEnd(28)} ${'kernel'.padEnd(24)} shapes; layer`,
    ...summary.kernels.slice(0, rows).map((part) => {
      const { op, kernel, shapes, layers, gbps } = part
      const more = layers.length > 1 ? ` and ${layers.length - 1} more` : ''
      const layer = layers[0] ? `; ${layers[0]}${more}` : ''
      return `${cells(part)} ${number(gbps).padStart(7)}  ${short(op, 28)} ${short(kernel, 24)} ${shapes}${layer}`
    }),
  ]
}

/** Threads of a process in the trace, in the order in which they are shown. */
const threads = ['JavaScript', 'device: programs', 'device: kernels'] as const

/**
 * Profiles in Chrome's trace event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open: a process for
 * each, with a thread for JavaScript, one for the programs and one for the kernels on the device. The two clocks are
 * related by the run that the device began soonest: it is drawn as beginning at the moment when it was submitted.
 * @param profiles by what to call them
 */
export function chromeTrace(profiles: ReadonlyMap<string, Profile>): string {
  const all = [...profiles].map(([name, { ordinary, detailed }]) => ({ name, steps: [...ordinary, ...detailed] }))
  const origin = Math.min(...all.flatMap(({ steps }) => steps.map(({ began }) => began)))
  const events = all.flatMap(({ name, steps }, i) => [...metadata(i + 1, name), ...traceEvents(i + 1, steps, origin)])
  return `{"displayTimeUnit":"ms","traceEvents":[\n${events.map((event) => JSON.stringify(event)).join(',\n')}\n]}\n`
}

const metadata = (pid: number, name: string): object[] => [
  { name: 'process_name', ph: 'M', pid, args: { name } },
  ...threads.flatMap((thread, i) => [
    { name: 'thread_name', ph: 'M', pid, tid: i + 1, args: { name: thread } },
    { name: 'thread_sort_index', ph: 'M', pid, tid: i + 1, args: { sort_index: i } },
  ]),
]

/** @param origin milliseconds of `performance.now()` where the trace begins */
function traceEvents(pid: number, steps: readonly StepTimes[], origin: number): object[] {
  const runs = steps.flatMap((step) => step.runs)
  // Whole nanoseconds, so that neighbours neither overlap nor part by rounding.
  const ofJavaScript = (milliseconds: number): number => Math.round((milliseconds - origin) * 1e6)
  const offset = Math.max(...runs.map(({ submitted, start }) => ofJavaScript(submitted) - start))
  const slice = (thread: (typeof threads)[number], name: string, start: number, end: number, args?: object): object => {
    const time = { ts: start / 1000, dur: (end - start) / 1000 }
    return { name, ph: 'X', pid, tid: threads.indexOf(thread) + 1, ...time, ...(args ? { args } : {}) }
  }
  const javaScript = (name: string, began: number, ended: number): object[] =>
    ended > began ? [slice('JavaScript', name, ofJavaScript(began), ofJavaScript(ended))] : []
  const ofStep = ({ began, ready, done, runs }: StepTimes): object[] => {
    const what = runs.some(({ kernels }) => kernels.length > 0) ? 'step, kernel by kernel' : 'step'
    return [...javaScript('wait for data', began, ready), ...javaScript(what, ready, done)]
  }
  const ofRun = ({ program, began, encoded, submitted, start, end, kernels }: RunTimes): object[] => [
    ...javaScript(`encode ${program}`, began, encoded),
    ...javaScript(`submit ${program}`, encoded, submitted),
    slice('device: programs', program, start + offset, end + offset),
    ...kernels.map(({ op, layer, kernel, shapes, bytes, ...time }) =>
      slice('device: kernels', op, time.start + offset, time.end + offset, { layer, kernel, shapes, bytes }),
    ),
  ]
  return [...steps.flatMap(ofStep), ...runs.flatMap(ofRun)]
}
