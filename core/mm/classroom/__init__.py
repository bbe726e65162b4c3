"""The classroom's reclaim policies, a file of three hooks each.

    isolate(s, r, lruvec)   the page to take next from a cgroup's lists on a node, still on its list; 0 if there is none
    accessed(s, zid, pfn)   a page was used: called where the policy asked to be told (`TOLD`), else the A bit in its entry must do
    age(s, lruvec)          before reclaim takes anything

They know one list a kind (nothing is ever "active") and the stamps of `State.stamps`, which count arrivals or uses. The
rest of reclaim (unmapping, swap, the page cache, cgroups, kswapd) is the kernel's: a page that such a policy names is taken, used or not.
"""
