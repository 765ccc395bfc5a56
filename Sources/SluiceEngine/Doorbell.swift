internal import NIOCore

/// Wakes one sleeper on an event loop. A ring with nobody waiting is kept for the next.
final class Doorbell {
    private let loop: any EventLoop
    private var isRung = false
    private var sleeper: CheckedContinuation<Void, Never>?
    private var alarm: Scheduled<Void>?

    init(loop: any EventLoop) {
        self.loop = loop
    }

    /// Rings. Called on the loop.
    func ring() {
        alarm?.cancel()
        alarm = nil
        guard let sleeper else {
            isRung = true
            return
        }
        self.sleeper = nil
        sleeper.resume()
    }

    /// Waits for a ring, or until some time has passed. Called on the loop.
    func wait(isolation: isolated (any Actor)? = #isolation, atMost limit: Duration?) async {
        if isRung {
            isRung = false
            return
        }
        await withCheckedContinuation { sleeper in
            self.sleeper = sleeper
            guard let limit else { return }
            let bound = NIOLoopBound(self, eventLoop: loop)
            alarm = loop.scheduleTask(in: .nanoseconds(max(0, limit.nanoseconds))) {
                bound.value.ring()
            }
        }
        isRung = false
    }
}

extension Duration {
    var nanoseconds: Int64 {
        components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
    }

    /// The duration as a number of seconds.
    package var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}
