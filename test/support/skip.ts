import { type Test, test } from 'uvu'

/**
 * Tests that need something which may be absent. When it is there, the result registers tests as `test` does; when it
 * is not, each is counted as skipped and its reason printed. A bare `test.skip` or `test.only` gives no reason, and
 * test/run.ts counts that as a failure.
 *
 *     const goldenTest = skipUnless(existsSync('../shared/golden'), '../shared/golden is absent')
 *     goldenTest('agrees with PyTorch', () => { ... })
 *     test.run()
 *
 * What has to be found out first may be awaited at the top of the test file:
 *
 *     const adapter = await findAdapter()
 *     const f16Test = skipUnless(adapter.features.has('shader-f16'), 'the adapter has no shader-f16')
 *
 * @param available whether the tests can run
 * @param reason what is missing, on one line
 * @param to the suite that the tests belong to, where it is not uvu's own `test`
 */
export function skipUnless(available: boolean, reason: string, to: Test = test): (...args: Parameters<Test>) => void {
  return (...args) => {
    if (available) return to(...args)
    console.log(`skipped "${args[0]}": ${reason}`)
    to.skip(...args)
  }
}
