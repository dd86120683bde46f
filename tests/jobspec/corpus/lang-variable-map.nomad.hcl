variable "labels" {
  type    = map(string)
  default = { count = 3, on = true }
}

job "lang-variable-map" {
  meta = var.labels

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
