/** The message of what `body` throws. */
export async function messageOf(body: () => unknown): Promise<string> {
  try {
    await body()
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  throw new Error('nothing was thrown')
}
