#!/usr/bin/env node
import { join } from 'node:path'
import { createCommand, runCommand } from './command.js'
import { overwriteOption, seedOption, wholeNumber } from './options.js'
import { makeLists, type SplitOptions, writeLists } from './train/data/splits.js'

const command = createCommand(
  'split',
  'Makes lists for training from a folder or a list of images: labeled.txt, unlabeled.txt (all the others) and, with ' +
    '--val, val.txt. With --labeled-list it completes a list that is there already.',
  {
    examples: [
      '--data-root data --images photos --labels masks --labeled 100 --val 1/10 --balanced --out data',
      '--data-root data/pascal --list splits/pascal/all.txt --labeled 1/16 --seed 1 --out splits/pascal/1_16',
      '--data-root data --images photos --labels masks --labeled-list labeled.txt --out data',
    ],
  },
)
  .option('--data-root <folder>', 'folder that the paths in the lists are relative to', '.')
  .option('--images <folder>', 'images, below data_root')
  .option('--labels <folder>', 'labels of the same names, below data_root; images without one become unlabeled')
  .option('--image-suffix <text>', 'what the names of the images have behind the part they share with the labels')
  .option('--label-suffix <text>', 'the same for the names of the labels, such as _mask')
  .option('--list <file>', 'in place of folders: a list of lines `image label`')
  .option('--labeled <count>', 'how many labeled images: a count, or a part such as 1/8 or 0.125')
  .option('--labeled-list <file>', 'in place of --labeled: write unlabeled.txt as the rest beside this list')
  .option('--val <count>', 'how many labeled images to keep for validation, taken out first')
  .option('--balanced', 'choose the labeled images so that each class is shown about equally often')
  .option('--ignore-index <value>', 'value of labels that is no class, for --balanced', wholeNumber(0), 255)
  .addOption(seedOption('the choice of images').default(0))
  .requiredOption('--out <folder>', 'where the lists go')
  .addOption(overwriteOption('the lists in the folder'))

await runCommand(async () => {
  const options = command.parse().opts<SplitOptions & { out: string; overwrite?: true }>()
  const lists = await makeLists(options)
  writeLists(lists, options.out, options.overwrite ?? false)
  for (const [name, pairs] of lists) console.log(`${join(options.out, name)}: ${pairs.length} images`)
  if (lists.get('unlabeled.txt')?.length === 0) console.log('note: no image is left for unlabeled.txt, it is empty')
})
