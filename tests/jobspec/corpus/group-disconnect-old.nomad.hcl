job "group-disconnect-old" {
  group "app" {
    max_client_disconnect      = "1h"
    prevent_reschedule_on_lost = true

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
