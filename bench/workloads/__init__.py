"""The workloads, group by group: data, contenders and promises. Nothing here takes a time."""
