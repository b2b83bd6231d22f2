import type { Store } from '../../engine/store.js'

/** Copies of a store's values, the oldest first; the oldest leaves when there are too many. */
export class SnapshotList {
  private readonly snapshots: { readonly name: string; readonly store: Store }[] = []

  /**
   * @param label what they are, in the plural, where memory is listed
   * @param most kept at a time
   * @param onLeave called with a snapshot that leaves, before its buffers are freed
   */
  constructor(
    readonly label: string,
    readonly most: number,
    private readonly onLeave: (snapshot: Store) => void = () => {},
  ) {}

  get length(): number {
    return this.snapshots.length
  }

  /** The snapshot at a position, 0 being the oldest. Throws where there is none. */
  at(index: number): Store {
    const snapshot = this.snapshots[index]
    if (!snapshot) throw new Error(`there are ${this.length} ${this.label}, but number ${index} is asked for`)
    return snapshot.store
  }

  /** Names of the snapshots, the oldest first. */
  get names(): string[] {
    return this.snapshots.map(({ name }) => name)
  }

  /** Adds a copy of the present values of `store` under a name. Returns the copy. */
  push(store: Store, name: string): Store {
    const copy = store.snapshot(`${this.label}/${name}`)
    this.snapshots.push({ name, store: copy })
    while (this.snapshots.length > this.most) {
      const oldest = this.snapshots.shift()
      if (oldest) this.leave(oldest.store)
    }
    return copy
  }

  destroy(): void {
    for (const { store } of this.snapshots.splice(0)) this.leave(store)
  }

  private leave(snapshot: Store): void {
    this.onLeave(snapshot)
    snapshot.destroy()
  }
}
