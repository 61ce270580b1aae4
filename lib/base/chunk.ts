// Lists cut into groups.

/**
 * Items of one key together, in groups of at most `max`; within a group they keep their order, and groups come in the
 * order in which their keys first did.
 */
export function chunkBy<T>(items: Iterable<T>, keyOf: (item: T) => string, max: number): T[][] {
  const open = new Map<string, T[]>();
  const groups: T[][] = [];
  for (const item of items) {
    const key = keyOf(item);
    let group = open.get(key);
    if (group === undefined || group.length >= max) {
      group = [];
      open.set(key, group);
      groups.push(group);
    }
    group.push(item);
  }
  return groups;
}
