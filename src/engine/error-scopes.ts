import type { GPUDevice } from './webgpu-types.js'

/**
 * Error scopes around work on a device whose owner uses it, too: errors of the owner's own work stay the owner's. Scopes of
 * a device are a stack, so that only what is called within `around` falls into them.
 */
export class ErrorScopes {
  private readonly pending = new Set<Promise<void>>()

  /** @param report gets what the work caused, out of memory or else invalid */
  constructor(
    private readonly gpu: GPUDevice,
    private readonly report: (message: string, isMemory: boolean) => void,
  ) {}

  around<T>(body: () => T): T {
    this.gpu.pushErrorScope('validation')
    this.gpu.pushErrorScope('out-of-memory')
    try {
      return body()
    } finally {
      this.expect(this.gpu.popErrorScope(), true)
      this.expect(this.gpu.popErrorScope(), false)
    }
  }

  /** Resolves when what the work so far has caused is reported. */
  async settled(): Promise<void> {
    await Promise.all(this.pending)
  }

  private expect(scope: Promise<{ readonly message: string } | null>, isMemory: boolean): void {
    const done = scope.then(
      (error) => {
        if (error) this.report(error.message, isMemory)
      },
      // The scopes of a lost device: the loss is told by itself.
      () => {},
    )
    this.pending.add(done)
    void done.then(() => this.pending.delete(done))
  }
}
