import { classNames, palette } from '#dist/demo/classes.js'
import { App } from './app.js'
import { find, mark, roving } from './dom.js'
import { CorrectPart } from './parts/correct.js'
import { StatusPart } from './parts/status.js'
import { TryPart } from './parts/try.js'
import { WatchPart } from './parts/watch.js'
import type { Machine } from './protocol.js'

/** Methods that train one network of the demo; co-training has several, of other kinds. */
const watched = [
  { name: 'prevmatch', text: 'PrevMatch' },
  { name: 'unimatch', text: 'UniMatch' },
  { name: 'augseg', text: 'AugSeg' },
  { name: 'dual-teacher', text: 'Dual Teacher' },
]

const learnable = [{ name: 'supervised', text: 'supervised' }, ...watched]

const parts = ['try', 'watch', 'correct', 'status'] as const
type Part = (typeof parts)[number]

const app = new App()
const trying = new TryPart(app)
const watching = new WatchPart(app, watched, classNames, palette)
const correcting = new CorrectPart(app, learnable, () => trying.seenSide)
new StatusPart(app, () => trying.picture)

/** The part that the address names: `#watch?seed=3`. */
function partOfAddress(): Part {
  const [name] = location.hash.slice(1).split('?')
  return parts.find((part) => part === name) ?? 'try'
}

function show(part: Part): void {
  for (const name of parts) find(`part-${name}`, HTMLElement).hidden = name !== part
  mark(find('tabs', HTMLDivElement), ({ id }) => id === `tab-${part}`, 'aria-selected')
  // What was tried is what is corrected first.
  const { picture } = trying
  if (part === 'correct' && correcting.isEmpty && picture) void app.attempt(() => correcting.add(picture))
}

function go(part: Part): void {
  if (partOfAddress() !== part) history.replaceState(null, '', `#${part}`)
  show(part)
}

roving(find('tabs', HTMLDivElement), ({ id }) => go(id.slice('tab-'.length) as Part))
window.addEventListener('hashchange', () => show(partOfAddress()))
show(partOfAddress())

function describe(machine: Machine | undefined): void {
  const chip = find('machine', HTMLAnchorElement)
  const notice = find('notice', HTMLParagraphElement)
  if (!machine) return
  const { adapter, reason } = machine
  chip.dataset.state = adapter ? (adapter.software ? 'software' : 'gpu') : 'none'
  chip.lastElementChild?.replaceChildren(adapter ? `${adapter.name}${adapter.software ? ', software' : ''}` : 'no GPU')
  notice.hidden = adapter !== undefined && !adapter.software
  notice.textContent = adapter
    ? 'The adapter here is software, which computes on the processor: pictures are segmented in WebAssembly instead, and training is slow.'
    : `No WebGPU: ${reason}. Pictures are segmented in WebAssembly; training needs WebGPU.`
}

app.machine.follow(describe)
app.fault.follow((fault) => {
  if (!fault) return
  const notice = find('notice', HTMLParagraphElement)
  notice.hidden = false
  notice.textContent = `${fault.message.replace(/^t/, 'T')}.`
})
app.client.on('machine', (machine) => {
  app.machine.value = machine
})

const themes = {
  auto: { label: 'as the system has it', path: 'M12 3a9 9 0 1 0 0 18V3Z M12 3a9 9 0 0 1 0 18' },
  light: {
    label: 'light',
    path: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5',
  },
  dark: { label: 'dark', path: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z' },
} as const
type Theme = keyof typeof themes

function setTheme(theme: Theme): void {
  const button = find('theme', HTMLButtonElement)
  if (theme === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
  button.setAttribute('aria-label', `Theme: ${themes[theme].label}`)
  button.innerHTML = `<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="${themes[theme].path}"/></svg>`
  button.dataset.theme = theme
  try {
    localStorage.setItem('theme', theme)
  } catch {
    // Where nothing may be kept, the theme is that of this visit.
  }
}

function keptTheme(): Theme {
  try {
    const kept = localStorage.getItem('theme')
    return kept === 'light' || kept === 'dark' ? kept : 'auto'
  } catch {
    return 'auto'
  }
}

setTheme(keptTheme())
find('theme', HTMLButtonElement).onclick = ({ currentTarget }) => {
  const order: Theme[] = ['auto', 'light', 'dark']
  const { theme } = (currentTarget as HTMLElement).dataset
  setTheme(order[(order.indexOf(theme as Theme) + 1) % order.length] ?? 'auto')
}

/** Pictures go to the part that is open, weights are tried. */
async function takeFiles(files: readonly File[]): Promise<void> {
  if (partOfAddress() === 'correct' && files.every(({ type }) => type.startsWith('image/'))) {
    await correcting.addFiles(files)
    return
  }
  go('try')
  await trying.openFiles(files)
}

const drop = find('drop', HTMLDivElement)
const holdsFiles = ({ dataTransfer }: DragEvent) => dataTransfer?.types.includes('Files') ?? false
window.addEventListener('dragover', (event) => {
  if (!holdsFiles(event)) return
  event.preventDefault()
  drop.hidden = correcting.takesUnlabeled(event.target)
})
window.addEventListener('dragleave', ({ relatedTarget }) => {
  if (relatedTarget !== null) return
  drop.hidden = true
  correcting.takesUnlabeled(null)
})
window.addEventListener('drop', (event) => {
  drop.hidden = true
  if (!holdsFiles(event)) return
  event.preventDefault()
  const files = [...(event.dataTransfer?.files ?? [])]
  const isUnlabeled = correcting.takesUnlabeled(event.target)
  correcting.takesUnlabeled(null)
  void app.attempt(() => (isUnlabeled ? correcting.addUnlabeled(files) : takeFiles(files)))
})

window.addEventListener('paste', ({ clipboardData }) => {
  const files = [...(clipboardData?.files ?? [])]
  if (files.length > 0) void app.attempt(() => takeFiles(files))
})

await app.attempt(async () => {
  app.machine.value = await app.client.call('open', undefined)
})
await app.attempt(() => trying.shipped())
await app.attempt(() => trying.start())
show(partOfAddress())
document.documentElement.dataset.ready = 'true'
// A shared link begins what it is of.
if (partOfAddress() === 'watch' && location.hash.includes('?')) void watching.start()
