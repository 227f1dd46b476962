"""What is promised, fault by fault."""

from __future__ import annotations

from bench.chaos import clocks, crashes, disks, doubt
from bench.chaos.promise import Promise

PROMISES = (
    Promise("F1 kill -9 at every named point and at random: what was acknowledged is stored, once", crashes.killed_anywhere),
    Promise("F2 delivered up to five times, at once and out of order: shown once, told once", doubt.delivered_again),
    Promise("F3 a send whose answer is lost ends as sent, or as unknown and shown; it is never sent again", doubt.send_answer_lost),
    Promise("F4 a webhook whose answer is lost is told again under the same id", doubt.hook_answer_lost),
    Promise("F5 a crash in sending: repeated where that is harmless, else shown as unknown", crashes.crashed_in_sending),
    Promise("F6 SIGTERM under load: exit 0 within 10 s, nothing lost, nothing in doubt", crashes.asked_to_stop),
    Promise("F7 a second server on the same file refuses to start", crashes.two_on_one_file, ("sqlite",)),
    Promise("F7 two servers on one database, either killed at any moment", crashes.two_on_one_database, ("postgresql",)),
    Promise("F9 disk full: refused within 2 s, nothing half written, healed within 5 s", disks.disk_full),
    Promise("F10 a failing sync: never a 200 for what is not on disk", disks.sync_fails, ("sqlite",)),
    Promise("F11 the database locked by another program: refused within 2 s, nothing lost", disks.locked_by_another),
    Promise("F12 PostgreSQL restarted, killed, cut off in COMMIT: never a 2xx that is not stored", disks.database_gone, ("postgresql",)),
    Promise("F13 the clock jumps by days: no lease stolen, order kept", clocks.clock_jumps),
    Promise("F14 one provider hangs: nobody else waits", clocks.provider_hangs),
    Promise("F16 a provider down for six hours: nothing lost, order kept", clocks.provider_down),
    Promise("F17 we were away for 1, 8 and 60 hours: whatever a provider still holds is taken", clocks.we_were_away),
)
