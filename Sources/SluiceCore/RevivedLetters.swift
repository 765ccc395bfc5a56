/// The dead letters that end with a batch.
package struct RevivedLetters {
    /// Those of which the rows are written or gone.
    package private(set) var ended: [DeadLetter]
    /// Those of rows that were to go and stay. They end only if they say that the key was of another
    /// type, which it is no more.
    package private(set) var staying: [DeadLetter] = []

    /// Begins with those that a batch would end.
    package init(_ letters: [DeadLetter] = []) { ended = letters }

    /// Takes in what a plan lets stay.
    package mutating func add(_ plan: KeptPlan, _ mapping: TableMapping) {
        guard !plan.staying.isEmpty else { return }
        let isStaying = { (letter: DeadLetter) in
            letter.table == mapping.name && plan.staying.contains(letter.identity)
        }
        staying += ended.filter(isStaying)
        ended.removeAll(where: isStaying)
    }
}
