job "task-identities" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      identity {
        env  = true
        file = true
      }
      identity {
        name          = "vault"
        aud           = ["vault.io"]
        ttl           = "1h"
        env           = true
        file          = true
        filepath      = "local/vault.jwt"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }
    }
  }
}
