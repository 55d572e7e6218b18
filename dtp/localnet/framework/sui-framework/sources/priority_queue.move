/// A heap with the largest priority on top.
module sui::priority_queue;

const EPopFromEmptyHeap: u64 = 0;
const ELengthMismatch: u64 = 1;

public struct PriorityQueue<T: drop> has drop, store {
    entries: vector<Entry<T>>,
}

public struct Entry<T: drop> has drop, store {
    priority: u64,
    value: T,
}

public fun new<T: drop>(mut entries: vector<Entry<T>>): PriorityQueue<T> {
    let length = entries.length();
    let mut at = length / 2;
    while (at > 0) {
        at = at - 1;
        max_heapify_recursive(&mut entries, length, at);
    };
    PriorityQueue { entries }
}

public fun pop_max<T: drop>(pq: &mut PriorityQueue<T>): (u64, T) {
    assert!(!pq.entries.is_empty(), EPopFromEmptyHeap);
    let Entry { priority, value } = pq.entries.swap_remove(0);
    let length = pq.entries.length();
    max_heapify_recursive(&mut pq.entries, length, 0);
    (priority, value)
}

public fun insert<T: drop>(pq: &mut PriorityQueue<T>, priority: u64, value: T) {
    pq.entries.push_back(Entry { priority, value });
    let last = pq.entries.length() - 1;
    restore_heap_recursive(&mut pq.entries, last);
}

public fun new_entry<T: drop>(priority: u64, value: T): Entry<T> {
    Entry { priority, value }
}

public fun create_entries<T: drop>(mut p: vector<u64>, mut v: vector<T>): vector<Entry<T>> {
    assert!(p.length() == v.length(), ELengthMismatch);
    let mut entries = vector[];
    p.reverse();
    v.reverse();
    while (!p.is_empty()) entries.push_back(Entry { priority: p.pop_back(), value: v.pop_back() });
    entries
}

fun restore_heap_recursive<T: drop>(v: &mut vector<Entry<T>>, i: u64) {
    if (i == 0) return;
    let parent = (i - 1) / 2;
    if (v[i].priority > v[parent].priority) {
        v.swap(i, parent);
        restore_heap_recursive(v, parent);
    }
}

fun max_heapify_recursive<T: drop>(v: &mut vector<Entry<T>>, len: u64, i: u64) {
    if (len == 0) return;
    let left = 2 * i + 1;
    let right = left + 1;
    let mut max = i;
    if (left < len && v[left].priority > v[max].priority) max = left;
    if (right < len && v[right].priority > v[max].priority) max = right;
    if (max != i) {
        v.swap(max, i);
        max_heapify_recursive(v, len, max);
    }
}

public fun priorities<T: drop>(pq: &PriorityQueue<T>): vector<u64> {
    let mut all = vector[];
    let mut at = 0;
    while (at < pq.entries.length()) {
        all.push_back(pq.entries[at].priority);
        at = at + 1;
    };
    all
}
