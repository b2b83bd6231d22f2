// The machine has one and a half MiB left.
process.availableMemory = () => 1.5 * 2 ** 20
