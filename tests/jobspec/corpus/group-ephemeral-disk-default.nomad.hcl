job "group-ephemeral-disk-default" {
  group "app" {
    ephemeral_disk {}

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
