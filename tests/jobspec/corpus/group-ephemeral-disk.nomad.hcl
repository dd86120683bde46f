job "group-ephemeral-disk" {
  group "app" {
    ephemeral_disk {
      size    = 500
      sticky  = true
      migrate = true
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
