"""Figures as they come, and the table at the end."""
import json
import os
import platform
import statistics
import time

import bed


class Raw:
    def __init__(self):
        folder = os.path.join(bed.TARGET, "bench")
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, time.strftime("%Y%m%d-%H%M%S.jsonl"))
        self.file = open(self.path, "w")
        self.figures, self.bases, self.failures, self.missing, self.notes = {}, {}, [], [], []

    def add(self, measure, subject, value, base=None):
        self.figures.setdefault(measure, {}).setdefault(subject, []).append(value)
        self.bases[measure] = base
        self.file.write(json.dumps({"measure": measure, "subject": subject, "value": value}) + "\n")
        self.file.flush()

    def failed(self, what, why):
        if (what, why) not in self.failures:
            self.failures.append((what, why))

    def note(self, title, text):
        self.notes.append((title, text))


def number(x):
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 1 else f"{x:.3f}"


def table(raw, sections):
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"\n## Measured {time.strftime('%Y-%m-%d')}, Linux {platform.release()}, {cores} cores shared by client, proxy "
          f"and upstream, load {load:.1f} at the end\n")
    print("| what | who | median | min | max | × base | runs |\n|---|---|---|---|---|---|---|")
    for measure, subjects in raw.figures.items():
        base = raw.bases[measure]
        against = statistics.median(subjects[base]) if base in subjects else None
        for subject, values in subjects.items():
            median = statistics.median(values)
            ratio = f"{median / against:.2f} {base}" if against and subject != base else ""
            print(f"| {measure} | {subject} | {number(median)} | {number(min(values))} | {number(max(values))} "
                  f"| {ratio} | {len(values)} |")
    for title, text in raw.notes:
        print(f"\n{title}:\n\n```\n{text}\n```")
    if raw.failures:
        print("\nNot measured, or with errors:\n")
        for what, why in raw.failures:
            print(f"- {what}: {' '.join(why.split())}")
    if raw.missing:
        print(f"\nPeers that are not installed here: {', '.join(sorted(set(raw.missing)))}.")
    print(f"\nRaw figures: {os.path.relpath(raw.path, bed.ROOT)}")
