"""PSI: how much time is lost waiting for memory (kernel/sched/psi.c).

`some` is time in which at least one task waits for memory, `full` time in which nobody does anything else. Totals are exact;
the three averages are recomputed every period of 2.004 s (2*HZ+1 ticks of 4 ms) as exponential means in fixed point,
1.0 = 2048:

    avg' = (avg * exp + pct * 2048 * (2048 - exp) [+ 2047 if it rises]) / 2048      exp = 1677, 1981, 2034 for 10, 60, 300 s

Worked numbers: one period of 100 % from zero gives (0 + 204800 * 371 + 2047) / 2048 = 37100, shown as 18.11; the fifth shows
63.18, not 100: it is a mean with a time constant of 10 s. A period without any stall lets it fall: 14.83, 12.14, ...

Periods in which nobody looked are made up for with zero samples; a stall longer than its period is carried over into the next.
`PsiGroup` is one such account, of the machine or of a cgroup: `stall` adds to the totals, `show` is the file's text.
"""

from __future__ import annotations

NSEC_PER_TICK = 4_000_000  # HZ = 250
PSI_PERIOD = (2 * 250 + 1) * NSEC_PER_TICK
FSHIFT = 11
FIXED_1 = 1 << FSHIFT
EXP = (1677, 1981, 2034)  # 10 s, 60 s, 300 s
SOME, FULL = range(2)
NAMES = ("some", "full")


def calc_load(load: int, exp: int, active: int) -> int:
    """One step of the mean; all in units of 1/2048 (include/linux/sched/loadavg.h)."""
    new = load * exp + active * (FIXED_1 - exp)
    if active >= load:
        new += FIXED_1 - 1
    return new // FIXED_1


def fixed_power(x: int, n: int) -> int:
    """x to the n-th, x in units of 1/2048, rounded at every step (kernel/sched/loadavg.c:fixed_power_int)."""
    result = FIXED_1
    while n:
        if n & 1:
            result = (result * x + (1 << (FSHIFT - 1))) >> FSHIFT
        n >>= 1
        x = (x * x + (1 << (FSHIFT - 1))) >> FSHIFT
    return result


def calc_avgs(avg: list[int], missed: int, stalled: int, period: int) -> list[int]:
    """The three means after `missed` empty periods and one of `period` ns with `stalled` ns of stall."""
    if missed:
        avg = [calc_load(load, fixed_power(exp, missed), 0) for load, exp in zip(avg, EXP, strict=True)]
    active = stalled * 100 // period * FIXED_1
    return [calc_load(load, exp, active) for load, exp in zip(avg, EXP, strict=True)]


class PsiGroup:
    """The memory stalls of a group of tasks. Times in ns of simulated time."""

    __slots__ = ("total", "avg", "avg_total", "last_update", "next_update")

    def __init__(self, now: int) -> None:
        self.total = [0, 0]  # some, full
        self.avg = [[0, 0, 0], [0, 0, 0]]
        self.avg_total = [0, 0]  # how much of the totals the averages have seen
        self.last_update = now
        self.next_update = now + PSI_PERIOD

    def stall(self, ns: int, full: bool) -> None:
        """Somebody waited for memory for `ns`; `full`: and nobody ran meanwhile."""
        self.total[SOME] += ns
        if full:
            self.total[FULL] += ns

    def update_averages(self, now: int) -> None:
        """Bring the averages up to `now`, if a period has ended."""
        if now < self.next_update:
            return
        missed = (now - self.next_update) // PSI_PERIOD
        self.next_update += (1 + missed) * PSI_PERIOD
        period = now - (self.last_update + missed * PSI_PERIOD)
        self.last_update = now
        for state in (SOME, FULL):
            sample = min(self.total[state] - self.avg_total[state], period)
            self.avg_total[state] += sample
            self.avg[state] = calc_avgs(self.avg[state], missed, sample, period)

    def show(self, now: int) -> str:
        """memory.pressure and /proc/pressure/memory: averages in percent, totals in microseconds."""
        self.update_averages(now)
        lines = []
        for state, name in enumerate(NAMES):
            means = " ".join(f"avg{seconds}={percent(load)}" for seconds, load in zip((10, 60, 300), self.avg[state], strict=True))
            lines.append(f"{name} {means} total={self.total[state] // 1000}\n")
        return "".join(lines)


def percent(load: int) -> str:
    """A mean as Linux prints it: two decimals, cut off."""
    return f"{load >> FSHIFT}.{((load & (FIXED_1 - 1)) * 100) >> FSHIFT:02d}"
