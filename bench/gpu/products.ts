// node build/bench/gpu/products.js [--size 4096] [--gpu NAME] [--json FILE]: GFLOP/s of a product of two square matrices of
// f16, for each of its kernels. The file is written anew behind each.
import { Command } from 'commander'
import { runCommand } from '#dist/command.js'
import { open } from '#dist/engine/node.js'
import { UserError } from '#dist/train/error.js'
import { writeAtomically } from '#dist/train/io/files.js'
import { eachHalfProduct } from '../peaks.js'

interface Options {
  readonly size: string
  readonly gpu?: string
  readonly json?: string
}

const command = new Command('products')
  .option('--size <rows>', 'rows and columns of the matrices', '4096')
  .option('--gpu <name>', 'part of the name of the adapter to use')
  .option('--json <file>', 'also write the results there')
  .action(({ size, gpu, json }: Options) =>
    runCommand(async () => {
      const device = await open({ gpu })
      if (!device.traits.half) throw new UserError('this adapter has no half precision (shader-f16)')
      const products: { kernel: string; gflops: number; failure?: string | undefined }[] = []
      await eachHalfProduct(device, Number(size), (kernel, gflops, failure) => {
        products.push({ kernel, gflops, failure })
        console.log(`${kernel}: ${failure ?? `${Math.round(gflops)} GFLOP/s`}`)
        if (json !== undefined)
          writeAtomically(json, [Buffer.from(`${JSON.stringify({ size: Number(size), products })}\n`)])
      })
      const best = products.reduce((a, b) => (b.gflops > a.gflops ? b : a))
      console.log(`fastest: ${best.kernel}, ${Math.round(best.gflops)} GFLOP/s`)
      device.destroy()
    }),
  )
await command.parseAsync()
