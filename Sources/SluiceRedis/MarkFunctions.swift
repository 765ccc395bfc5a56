package import NIOCore
internal import RESPWire

/// The functions with which an application writes and marks in one step.
///
/// - `FCALL sluice_write N KEY… COMMAND ARGUMENT…` runs one write command and marks its keys.
/// - `FCALL sluice_write_all N KEY… COUNT WORD… COUNT WORD…` runs several, each given as the number of its
///   words and the words, and marks the keys.
/// - `FCALL sluice_remove N KEY… COMMAND ARGUMENT…` is `sluice_write` for commands that remove, and works
///   also when Redis has reached `maxmemory`.
///
/// Keys are marked first, so that a command which fails leaves a mark too many at worst. Of
/// `sluice_write_all` the commands before one that fails stay done, as with MULTI. On servers before 7.0 the same text is a script, called with `EVALSHA` and the function's name as the
/// first argument.
public enum MarkFunctions {
    /// The version of the text; a server that has an older one gets this.
    public static let version = 2

    // One mark for each key: when it was first changed since it was read last. A key that is marked
    // already needs no time, which costs more than to look.
    private static let body = """
        local function mark(keys)
          local now
          for i = 1, #keys do
            if not redis.call('ZSCORE', 'sluice:dirty', keys[i]) then
              if not now then
                local time = redis.call('TIME')
                now = time[1] * 1000 + math.floor(time[2] / 1000)
              end
              redis.call('ZADD', 'sluice:dirty', now, keys[i])
            end
          end
        end
        local function write(keys, args)
          mark(keys)
          return redis.call(unpack(args))
        end
        local function write_all(keys, args)
          local replies, place = {}, 1
          mark(keys)
          while place <= #args do
            local count = tonumber(args[place])
            if not count or count < 1 or place + count > #args then
              return redis.error_reply('ERR expected the number of words of a command, then the words')
            end
            replies[#replies + 1] = redis.call(unpack(args, place + 1, place + count))
            place = place + count + 1
          end
          return replies
        end
        """

    // A full Redis takes no write but those that make room; and a mark takes some.
    private static let remove = """
        local makes_room = {
          DEL = 1, UNLINK = 1, GETDEL = 1, HDEL = 1, SREM = 1, SPOP = 1, ZREM = 1, ZPOPMIN = 1,
          ZPOPMAX = 1, LPOP = 1, RPOP = 1, LTRIM = 1, LREM = 1, XDEL = 1, XTRIM = 1,
          EXPIRE = 1, PEXPIRE = 1, EXPIREAT = 1, PEXPIREAT = 1
        }
        local function remove(keys, args)
          if not args[1] or not makes_room[string.upper(args[1])] then
            return redis.error_reply('ERR expected a command that removes; use sluice_write')
          end
          return write(keys, args)
        end
        """

    /// The library, for `FUNCTION LOAD` from 7.0 on.
    public static let library = """
        #!lua name=sluice
        \(body)
        \(remove)
        redis.register_function{function_name='sluice_remove', callback=remove, flags={'allow-oom'}}
        redis.register_function('sluice_write', write)
        redis.register_function('sluice_write_all', write_all)
        redis.register_function{function_name='sluice_version',
          callback=function() return \(version) end, flags={'no-writes'}}
        """

    /// The script, for `SCRIPT LOAD` before 7.0.
    public static let script = """
        \(body)
        local name = table.remove(ARGV, 1)
        if name == 'sluice_write' then return write(KEYS, ARGV) end
        if name == 'sluice_write_all' then return write_all(KEYS, ARGV) end
        return redis.error_reply('ERR expected sluice_write or sluice_write_all')
        """

    /// What became of loading them.
    public enum Outcome: Hashable, Sendable {
        /// The server had them.
        case present
        /// They were loaded, or a newer version.
        case loaded
        /// The script was loaded, under this digest.
        case script(String)
        /// The server or its permissions do not allow it; MULTI marks as well.
        case refused(String)
    }

    /// Loads the functions, unless the server has them.
    ///
    /// - Parameter isOld: Whether the server is older than 7.0, and knows only scripts.
    package static func load(
        to endpoint: RedisEndpoint, on loop: any EventLoop, isOld: Bool,
    ) async throws(RedisError) -> Outcome {
        let connection = try await RedisConnection.connect(
            to: endpoint, on: loop, name: "sluice-functions")
        defer { connection.close() }
        if isOld {
            let reply = try await connection.send(["SCRIPT", "LOAD", script])
            if case .error(let text) = reply { return .refused(text) }
            return .script(reply.text ?? "")
        }
        let present = try await connection.send(["FCALL_RO", "sluice_version", "0"])
        if let number = present.integer, number >= version { return .present }
        let reply = try await connection.send(["FUNCTION", "LOAD", "REPLACE", library])
        if case .error(let text) = reply { return .refused(text) }
        return .loaded
    }
}
