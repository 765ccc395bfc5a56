internal import Logging
internal import SluiceCore
internal import SluiceRedis

extension Pipeline {
    // MARK: Causes

    /// Collects the events of keys that went by themselves.
    func hearCauses() async throws(RedisError) {
        guard isListening, let keyEvents else { return }
        do throws(RedisError) {
            note(try await keyEvents.barrier())
        } catch {
            guard error.response == .retry else { return isListening = false }
            // What happens until it is renewed, nobody says.
            marking.reliableSince = nil
            throw error
        }
    }

    private func note(_ answer: KeyEvents.Answer) {
        marking.events += answer.events
        if answer.hasUsedFieldDeadlines, info?.knowsFieldDeadlines == true {
            machine?.fieldsMayExpire()
        }
        // A flush removes keys and says of none that it went.
        if !answer.isReliable || !answer.isUndisturbed || !answer.isUnflushed {
            marking.reliableSince = nil
        } else if marking.reliableSince == nil {
            // The time is that of the next round.
            marking.reliableSince = .min
        }
    }

    /// Asks why keys went that were read missing.
    func askVerdicts() async {
        var events: [KeyEvent] = []
        if isListening, let answer = try? await keyEvents?.barrier() {
            note(answer)
            events = marking.events
            marking.events = []
        } else {
            marking.reliableSince = nil
        }
        let since = marking.reliableSince == .min ? nil : marking.reliableSince
        machine?.causesAnswered(events, reliableSince: since)
        marksBell.ring()
        doorbell.ring()
    }

    // MARK: Streams

    /// The items of a read, with what the database has of their streams.
    func afterLastEntries(_ items: [ReadItem]) async throws(SinkError) -> [ReadItem] {
        let wanted = machine?.streamsToFind ?? []
        guard !wanted.isEmpty else { return items }
        var last = [Bytes?](repeating: nil, count: wanted.count)
        for (table, places) in Dictionary(grouping: wanted.indices, by: { wanted[$0].table }) {
            let keys = places.map { wanted[$0].key }
            let found = try await sink.lastEntries(table: table, keys: keys)
            for (place, id) in zip(places, found) { last[place] = id }
        }
        return machine?.streamsFound(last) ?? items
    }

    // MARK: Flushing

    /// Has everything taken that is marked now, and says at which offset it is.
    func roundForFlush() async -> (offset: Int64, history: ReplicationID)? {
        guard isStreaming else { return nil }
        let wanted = marking.begun + 1
        marking.isWanted = true
        marksBell.ring()
        while marking.ended < wanted {
            guard isStreaming, !isDraining, !Task.isCancelled else { return nil }
            try? await pause(.milliseconds(5))
        }
        guard let processed = machine?.processed else { return nil }
        return (processed.offset, processed.history)
    }
}
